"""From a mask to a physically smaller module: what is removed is gone, and the rest is proved."""

import copy
import io
from contextlib import redirect_stderr
from typing import Literal, get_args

import torch
from torch import fx, nn

from ..errors import MaskError, PlanError
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..graph.rules import require_permitted
from ..tracing.agreement import drawn
from ..tracing.program import Program, as_module, set_modes
from ..tracing.signature import sign
from ..tracing.sizes import frozen_axes
from ..values.nested import named_tensors
from .lower import lower
from .masked import Tensors, masked_network
from .module_form import in_own_class
from .numbers import REASON
from .plan import Plan
from .verify import compare, rounding, verify
from .whole import in_place

Form = Literal["program", "module"]


def prune(
    graph: Graph, plan: Plan | Mask, *, form: Form = "program", tensors: Tensors | None = None
) -> nn.Module:
    """A physically smaller model, verified against the masked one on the traced example.

    Args:
        graph: the traced graph of the model.
        plan: a plan, or a bare mask.
        form: "module" is the model's own class, its modules resized, gone or passed through, with
            its methods, settings and hooks; "program" a generated module, which every mask has.
        tensors: recovered tensors by name; a plan brings its own.

    Returns:
        The pruned model with its own weights, in the mode (train or eval) of the traced one; of a
        graph of a part the whole model, the part pruned.
        Names of what stays are those of the model, and so are the arguments that it takes. In
        program form it is an `fx.GraphModule`: it takes the batches, lengths and image sizes that
        the model takes, and arguments that held no tensor have the values that they were traced
        with; where tracing fixed something (`graph.fixed`), or the removal does, calling it with
        another raises ObjectiveError.

    Raises:
        FormError: form="module", and the model's own code cannot do what the mask says; names
            the module, the line and the unit. `ew.without_module_form` lists such units.
        PlanError: the plan belongs to another model.
        MaskError, DisconnectedError: the mask does, breaks a rule, or cuts off an output.
        VerificationError: the rewritten model differs from the masked one (a bug worth a report).

    Examples:
        >>> small = ew.prune(graph, graph.mask(["blocks.0.first.0..blocks.0.norm"]))
        >>> sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
        True
        >>> own = ew.prune(graph, graph.mask([0]), form="module")
        >>> type(own) is type(model)
        True
    """
    mask, tensors = resolve(graph, plan, tensors)
    require_permitted(graph, mask)
    if form not in get_args(Form):
        raise PlanError(f'form is "program" or "module"; got {form!r}.')
    if form == "module":
        edits = plan.edits if isinstance(plan, Plan) else None
        small = in_own_class(graph, mask, tensors, edits or None)[0]
    else:
        with graph.program.as_called():
            small = _as_program(graph, mask, tensors)
    if graph.program.whole is None:
        return small
    return in_place(graph, small, masked_network(graph, mask, tensors))


def unpruned(graph: Graph) -> nn.Module:
    """The network as it was traced, which takes the data; of a graph of a part the whole model."""
    program: Program = graph.program
    if program.whole is None:
        return program.module
    return program.whole.around(rewritten(graph, graph.empty, {}))


def _as_program(graph: Graph, mask: Mask, tensors: Tensors) -> nn.Module:
    """The pruned module in program form, verified."""
    small = rewritten(graph, mask, tensors)
    full = masked_network(graph, mask, tensors)
    verify(graph, mask, full, small)
    frozen = _frozen(graph.program, full, small)
    if frozen:
        small.meta["edgewise_traced"] = small.meta["edgewise_traced"].also(frozen, REASON)
        sign(small.graph, small.meta["edgewise_traced"])
        small.recompile()
    return small


def _frozen(program: Program, full: nn.Module, small: nn.Module) -> set[tuple[int, int, int]]:
    """The lengths and image sizes besides which a pruned model is not the masked one.

    The two are compared on drawn inputs of another batch and, where the unpruned model runs
    there, of other sizes.
    """
    frozen = set[tuple[int, int, int]]()
    for sizes in program.sizes:
        other = drawn(program.args, program.batch, program.other_batch, sizes)
        args = program.traced.positional(other)
        try:
            with redirect_stderr(io.StringIO()):  # torch.fx prints the code that fails
                difference, allowed = compare(full, small, args)
            agree = difference <= allowed or rounding(full, small, args)
        except Exception:  # noqa: BLE001 - what a size that was written out raises is torch's
            agree = False
        if not agree:
            frozen.update(frozen_axes(program.args, sizes))
    return frozen


def resolve(
    graph: Graph, plan: Plan | Mask, tensors: Tensors | None = None
) -> tuple[Mask, Tensors]:
    """The mask and the recovered tensors of a plan or a bare mask."""
    if isinstance(plan, Mask):
        graph.check(plan)
        return plan, tensors or {}
    if not isinstance(plan, Plan):
        raise MaskError(
            f"A plan or a mask is needed, got {type(plan).__name__}. Make one of unit names or "
            "indices with graph.mask([...]), or of bits with graph.mask(bits=...)."
        )
    if graph.fingerprint != plan.fingerprint:
        kinds = plan.trace.get("granularity")
        raise PlanError(
            f"The plan was made for graph {plan.fingerprint[:12]}, this one is "
            f"{graph.fingerprint[:12]}: another architecture, granularity, unit selection, or "
            "version of the model's code. Trace the model that the plan was made for"
            f"{f', with granularity={tuple(kinds)}' if kinds else ''}."
        )
    mask = graph.mask(bits=plan.bits)
    names = [graph.units[unit].name for unit in mask.removed]
    if names != list(plan.removed):
        raise PlanError(
            "The plan contradicts itself: its bits remove other units than it lists under "
            "`removed`. The file was edited; use the plan as it was saved."
        )
    if plan.edits.get("bits", plan.bits) != plan.bits:
        raise PlanError("The plan contradicts itself: its edits are those of another mask.")
    return mask, tensors or plan.tensors


def rewritten(graph: Graph, mask: Mask, tensors: Tensors) -> fx.GraphModule:
    """The pruned module, not verified."""
    alive = liveness(graph, mask).require_connected()
    lowered = lower(graph, alive)
    attributes = copy.deepcopy(lowered.attributes)
    name = type(graph.program.module).__name__
    traced = lowered.guard or graph.program.traced
    sign(lowered.graph, traced)
    module = as_module(attributes, lowered.graph, name)
    for path in tensors:
        _set_tensor(module, path, tensors[path])
    module.meta |= {"edgewise_args": graph.program.arguments, "edgewise_traced": traced}
    set_modes(module, graph.program.modes)
    return module


def _set_tensor(module: nn.Module, path: str, value: torch.Tensor) -> None:
    tensor = named_tensors(module).get(path)
    if tensor is None:
        raise PlanError(f"The plan recovers {path!r}, which the pruned model does not have.")
    if tensor.shape != value.shape or tensor.is_floating_point() != value.is_floating_point():
        raise PlanError(
            f"The plan recovers {path!r} as {value.dtype} of shape {tuple(value.shape)}, but the "
            f"pruned model has it as {tensor.dtype} of shape {tuple(tensor.shape)}."
        )
    with torch.no_grad():
        tensor.copy_(value)
