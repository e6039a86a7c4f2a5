"""From a mask to a physically smaller module: what is removed is gone, and the rest is proved."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..errors import EdgewiseWarning, MaskError, PlanError, VerificationError
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..tracing.agreement import drawn
from ..tracing.program import Program, as_module, evaluating, set_modes
from ..tracing.signature import sign
from ..tracing.sizes import frozen_axes
from ..values.nested import copies_of, leaves_of
from ..values.precision import full_precision
from .lower import lower
from .masked import Tensors, masked
from .numbers import REASON

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 5e-2}


class Chosen(Protocol):
    """What `prune` needs of a plan."""

    @property
    def bits(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def removed(self) -> tuple[str, ...]: ...

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]: ...


def prune(graph: Graph, plan: Chosen | Mask, *, tensors: Tensors | None = None) -> nn.Module:
    """A physically smaller model, verified against the masked one on the traced example.

    Args:
        graph: the traced graph of the model.
        plan: a plan, or a bare mask.
        tensors: recovered tensors by name; a plan brings its own.

    Returns:
        An `fx.GraphModule` with its own weights, in the mode (train or eval) of the traced model.
        Names of what stays are those of the model, and so are the arguments that it takes. Those
        that held no tensor have the values that they were traced with, as `graph.fixed` lists:
        calling it with another raises ObjectiveError, and so do other batch and image sizes where
        tracing fixed these.

    Raises:
        PlanError: the plan belongs to another model.
        MaskError, DisconnectedError: the mask does.
        VerificationError: the rewritten model differs from the masked one (a bug worth a report).

    Examples:
        >>> small = ew.prune(graph, graph.mask(["blocks.0.first.0..blocks.0.norm"]))
        >>> sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
        True
    """
    mask, tensors = resolve(graph, plan, tensors)
    small = rewritten(graph, mask, tensors)
    full = masked(graph, mask, tensors)
    verify(graph, mask, full, small)
    frozen = _frozen(graph.program, full, small)
    if frozen:
        sign(small.graph, small.meta["edgewise_traced"].also(frozen, REASON))
        small.recompile()
    return small


def _frozen(program: Program, full: nn.Module, small: nn.Module) -> set[tuple[int, int, int]]:
    """The lengths and image sizes besides which a pruned model is not the masked one.

    The two are compared on drawn inputs of another batch and, where the unpruned model runs
    there, of other sizes.
    """
    frozen = set[tuple[int, int, int]]()
    for sizes in program.sizes:
        batch = program.batch if program.takes else 3 - min(program.batch, 2)  # 1 or 2
        args = program.traced.positional(drawn(program.args, program.batch, batch, sizes))
        try:
            with redirect_stderr(io.StringIO()):  # torch.fx prints the code that fails
                difference, allowed = compare(full, small, args)
        except Exception:  # noqa: BLE001 - what a size that was written out raises is torch's
            frozen.update(frozen_axes(program.args, sizes))
        else:
            if not (difference <= allowed or _rounding(full, small, args)):
                frozen.update(frozen_axes(program.args, sizes))
    return frozen


def resolve(
    graph: Graph, plan: Chosen | Mask, tensors: Tensors | None = None
) -> tuple[Mask, Tensors]:
    """The mask and the recovered tensors of a plan or a bare mask."""
    if isinstance(plan, Mask):
        graph.check(plan)
        return plan, tensors or {}
    if not hasattr(plan, "fingerprint") or not hasattr(plan, "bits"):
        raise MaskError(
            f"A plan or a mask is needed, got {type(plan).__name__}. Make one of unit names or "
            "indices with graph.mask([...]), or of bits with graph.mask(bits=...)."
        )
    if not graph.known_as(plan.fingerprint):
        raise PlanError(
            f"The plan was made for graph {plan.fingerprint[:12]}, this one is "
            f"{graph.fingerprint[:12]}: another architecture, granularity, unit selection, or "
            "version of the model's code. Trace the model that the plan was made for."
        )
    mask = graph.mask(bits=plan.bits)
    names = [graph.units[unit].name for unit in mask.removed]
    if names != list(plan.removed):
        raise PlanError(
            "The plan contradicts itself: its bits remove other units than it lists under "
            "`removed`. The file was edited; use the plan as it was saved."
        )
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
    tensor = dict([*module.named_parameters(), *module.named_buffers()]).get(path)
    if tensor is None:
        raise PlanError(f"The plan recovers {path!r}, which the pruned model does not have.")
    if tensor.shape != value.shape or tensor.is_floating_point() != value.is_floating_point():
        raise PlanError(
            f"The plan recovers {path!r} as {value.dtype} of shape {tuple(value.shape)}, but the "
            f"pruned model has it as {tensor.dtype} of shape {tuple(tensor.shape)}."
        )
    with torch.no_grad():
        tensor.copy_(value)


def verify(graph: Graph, mask: Mask, full: nn.Module, small: nn.Module) -> float:
    """The largest relative difference between a pruned and the masked model on the example.

    Raises:
        VerificationError: it is above 1e-5 (float32; 1e-10 in float64).
    """
    args = graph.program.arguments
    difference, allowed = compare(full, small, args)
    if not difference <= allowed and _rounding(full, small, args):
        warnings.warn(
            f"The pruned and the masked model differ by {difference:.3g} (relative), but not in "
            "float64: this network amplifies rounding.",
            EdgewiseWarning,
            stacklevel=3,
        )
    elif not difference <= allowed:
        raise VerificationError(
            f"The pruned model differs from the masked one by {difference:.3g} (relative; allowed "
            f"{allowed:g}) on the traced example. Nothing is returned. Please report the model and "
            f"the mask: {mask}"
        )
    return difference


def _rounding(full: nn.Module, small: nn.Module, args: tuple[Any, ...]) -> bool:
    """Whether two models that differ in their own precision agree in float64."""
    try:
        precise = [copy.deepcopy(module).double() for module in (full, small)]
        difference, allowed = compare(precise[0], precise[1], pytree.tree_map(_double, args))
    except RuntimeError:
        return False  # the network computes in a precision of its own choice
    return allowed == TOLERANCE[torch.float64] and difference <= allowed


def _double(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value


def compare(reference: nn.Module, other: nn.Module, args: tuple[Any, ...]) -> tuple[float, float]:
    """Largest relative difference of two models' outputs in eval mode, and what is allowed."""
    with evaluating(reference, other), torch.no_grad(), full_precision():
        left, right = (module(*copies_of(args)) for module in (reference, other))
    leaves, others = leaves_of(left), leaves_of(right)
    worst, allowed = (0.0 if len(leaves) == len(others) else float("inf")), 1e-10
    for a, b in zip(leaves, others, strict=False):
        if isinstance(a, torch.Tensor):
            worst = max(worst, relative_difference(a, b))
            allowed = max(allowed, TOLERANCE.get(a.dtype, 0.0))
    return worst, allowed


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a - b| / max |a|; infinite where shapes or non-finite entries differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not a.numel():
        return 0.0
    if not a.dtype.is_floating_point:
        return 0.0 if torch.equal(a, b) else float("inf")
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)) or not torch.equal(
        a[~finite].isnan(), b[~finite].isnan()
    ):
        return float("inf")
    left, right = a[finite].double(), b[finite].double()
    if not left.numel():
        return 0.0
    scale = max(left.abs().max().item(), 1e-12)
    return float((left - right).abs().max().item()) / scale
