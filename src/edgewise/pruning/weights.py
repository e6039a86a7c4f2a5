"""Saving a pruned model and building it again in another process, without pickle."""

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialized
from torch import nn

from ..errors import PlanError, TraceError
from ..graph.graph import Graph
from ..graph.units import recorded_units
from ..tracing.architecture import operators, other_constant, other_parameter
from ..tracing.trace import trace
from ..tracing.whole import Part, around, holder
from ..values.arguments import split_arguments
from ..values.files import check_regular, write_atomically
from ..values.identity import difference
from ..values.nested import device_of, moved
from .edited import edited, marked
from .edits import from_dict, printed
from .plan import Plan
from .prune import prune

Example = tuple[Any, ...] | Mapping[str, Any]


def save(module: nn.Module, path: str | Path) -> Path:
    """Write the weights and buffers of a pruned model as safetensors; tied ones stay tied.

    Args:
        module: what `ew.prune` or `ew.heal` returned.
        path: the file, usually *.safetensors.

    Raises:
        PlanError: the place cannot be written to, or safetensors cannot hold some of it.

    Examples:
        >>> path = ew.save(ew.prune(graph, graph.mask([0])), "small.safetensors")
    """
    path = Path(path)
    require_savable(module)
    tensors, tied = _distinct(module)
    try:
        write_atomically(path, lambda to: save_file(tensors, str(to), metadata=tied or None))
    except OSError as error:
        raise PlanError(f"The weights cannot be written to {path}: {error}") from error
    return path


def require_savable(module: nn.Module) -> None:
    """Require that `save` can write all that a model's state dict holds.

    Raises:
        PlanError: it cannot; names the first entry.
    """
    for name, value in module.state_dict().items():
        if reason := _unsavable(value):
            raise PlanError(
                f"{type(module).__name__} cannot be saved as safetensors: {name!r} is {reason}. "
                "Keep it out of the state dict (register_buffer(..., persistent=False), no "
                "get_extra_state), or in another form."
            )


def _unsavable(value: Any) -> str:
    """Why a value of a state dict cannot be saved; nothing where it can."""
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}, and no tensor"
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return "sparse, quantized or without values (on the device 'meta')"
    try:
        serialized({"of": torch.empty(0, dtype=value.dtype)})
    except (KeyError, ValueError, SafetensorError):
        return f"of {value.dtype}, which safetensors does not have"
    return ""


def _distinct(module: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A model's tensors, each in memory of its own, and for names tied to one of them which."""
    tensors: dict[str, torch.Tensor] = {}
    tied, names, memory = dict[str, str](), dict[Any, str](), set[Any]()
    for name, value in module.state_dict().items():
        place = (value.device, value.untyped_storage().data_ptr())
        same = (*place, value.data_ptr(), value.dtype, value.shape, value.stride())
        first = names.setdefault(same, name)
        if first != name:
            tied[name] = first
        else:
            own = value.contiguous()
            tensors[name] = own.clone() if own is value and place in memory else own
            memory.add(place)
    return tensors, tied


def load(
    factory: Callable[[], nn.Module],
    plan: str | Path | Plan,
    weights: str | Path,
    *,
    example: Example | None = None,
) -> nn.Module:
    """Build a pruned model again: your own model factory, the plan, and the saved weights.

    Where the plan has edits, they are applied to the model, and nothing is traced. Weights of the
    program form that the model's own class has not all of, plans without edits, and a given example
    take the way that the plan was made: the model is traced and pruned.

    Args:
        factory: makes the unpruned architecture (its weights do not matter).
        plan: the plan, or its path.
        weights: what `ew.save` wrote.
        example: inputs to trace with, a tuple or a dict by name; needed only if the model is traced
            and was so with more than tensors, numbers and text.

    Returns:
        The pruned module in eval mode: in the factory's own class, or the program.

    Raises:
        PlanError: the factory makes another architecture (names the first parameter or operator
            that differs), or the weights are of another model.

    Examples:
        >>> plan = study.plan()
        >>> weights = ew.save(ew.prune(graph, plan), "small.safetensors")
        >>> small = ew.load(make_model, plan, weights)
    """
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    found, tied = _entries(Path(weights))
    known = found.keys() | tied.keys()
    small = _in_own_class(factory, plan, known) if example is None else None
    small = small or prune(retrace(factory(), plan, example), plan)
    _check_weights(small, found, weights)
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"The weights in {weights} cannot be read: {error}") from error
    _unexpand(small)
    try:
        own = small.state_dict().keys() & tied.keys()
        small.load_state_dict(tensors | {name: tensors[tied[name]] for name in own})
    except RuntimeError as error:
        raise PlanError(f"The weights in {weights} are not those of the plan: {error}") from error
    return small.eval()


Entries = dict[str, tuple[tuple[int, ...], str]]


def _in_own_class(
    factory: Callable[[], nn.Module], plan: Plan, known: Set[str]
) -> nn.Module | None:
    """The factory's model with the plan's edits; None where the weights are of another form.

    None also where the model is another than the plan's: tracing says in what.
    """
    if "modules" not in plan.edits or plan.edits.get("bits") != plan.bits:
        return None
    model = factory()
    if not isinstance(model, nn.Module):
        return None
    if printed(model) != plan.edits.get("printed") or _other_parameter(model, plan):
        return None
    edited(model, from_dict(plan.edits))
    if known != model.state_dict().keys():
        return None
    data = {key: plan.edits[key] for key in ("version", "modules")}
    takes = plan.trace["tensors_only"] and not plan.trace["part"]
    return marked(model, data, _inputs(plan)[1] if takes else {})


def _unexpand(module: nn.Module) -> None:
    """Give memory of their own to buffers that repeat one number, which cannot be written to."""
    known: dict[torch.Tensor, torch.Tensor] = {}  # by identity: one of two names stays tied
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and 0 in buffer.stride():
                part._buffers[name] = known.setdefault(buffer, buffer.contiguous())


def _entries(path: Path) -> tuple[Entries, dict[str, str]]:
    """The shapes and dtypes that a file of weights names in its header, and names tied to them."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {n: (tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
            notes = file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise PlanError(f"The weights in {path} cannot be read: {error}") from error
    return found, {name: kept for name, kept in notes.items() if kept in found}


def _check_weights(small: nn.Module, found: Entries, path: str | Path) -> None:
    """Compare what the file's header names with the model, before a tensor is read."""
    own = small.state_dict()
    for name, (shape, kind) in found.items():
        there = own.get(name)
        if there is None or shape != tuple(there.shape) or _floats(kind) != _floats(there.dtype):
            wanted = "none" if there is None else f"{there.dtype} of shape {tuple(there.shape)}"
            raise PlanError(
                f"The weights in {path} are not those of the plan: {name!r} is {kind} of shape "
                f"{shape} there, and {wanted} in the pruned model."
            )


def _floats(kind: str | torch.dtype) -> bool:
    """Whether a dtype, of torch or by the name that safetensors has for it, is of floats."""
    return kind.startswith(("F", "BF")) if isinstance(kind, str) else kind.is_floating_point


def retrace(model: nn.Module, plan: Plan, example: Example | None = None) -> Graph:
    """The graph that a plan was made for, from a model of the same architecture.

    Raises:
        PlanError: the model gives another graph.
    """
    if example is None and not plan.trace["tensors_only"]:
        raise PlanError("The plan's model takes more than tensors: pass example=(...) to load it.")
    args, kwargs = _inputs(plan) if example is None else split_arguments(example)
    args, kwargs = moved((args, kwargs), device_of(model))
    parts = [Part(*part) for part in plan.trace["part"]]
    paths = [part.path for part in parts] or None
    traced = partial(trace, granularity="raw", frontend=plan.trace["frontend"])
    try:
        if example is None and parts:  # what the parts got is known, though not what led to it
            whole = replace(around(model, parts), given=kwargs)
            raw = traced(holder(model, parts), args, kwargs)
            raw = replace(raw, program=replace(raw.program, whole=whole))
        else:
            raw = traced(model, args, kwargs, part=paths)
    except AttributeError as error:  # there is no such part
        raise _other_network(model, plan, str(error)) from error
    except TraceError as error:
        if isinstance(model, nn.Module) and (other := _other_parameter(model, plan)):
            raise _other_network(model, plan, other) from error
        raise
    graph = _with_units(raw, plan)
    if graph.fingerprint != plan.fingerprint:
        operator = difference(plan.trace["operators"], operators(raw))
        setting = difference(plan.trace["settings"], raw.settings)
        raise _other_network(model, plan, _other_parameter(model, plan) or operator or setting)
    if other := other_constant(plan.trace["unsaved"], raw):
        raise _other_network(model, plan, other)
    return graph


def _with_units(raw: Graph, plan: Plan) -> Graph:
    """The graph with the plan's units; those of an edited plan may be impossible."""
    record = plan.trace
    kinds = tuple(record["granularity"])
    try:
        cuts = [*record["widths"], *record["ties"]]
        graph = recorded_units(raw, kinds, record["units"], cuts)
        graph.fingerprint  # noqa: B018 - it reads all of them
    except (TraceError, LookupError, ValueError, TypeError) as error:
        name = plan.provenance.get("model", "its model")
        raise PlanError(
            f"The plan's units do not fit {name}: {type(error).__name__} {error}. The file "
            "was edited, or is of another model; use the plan as it was saved."
        ) from error
    return graph


def _other_parameter(model: nn.Module, plan: Plan) -> str | None:
    return other_parameter(plan.trace["parameters"], model)


def _other_network(model: nn.Module, plan: Plan, difference: str | None) -> PlanError:
    return PlanError(
        f"The factory makes another network ({type(model).__name__}) than the one the plan was "
        f"made for ({plan.provenance.get('model', 'unnamed')}): "
        f"{difference or 'operators take other arguments'}. The factory must make the same "
        "architecture, with the same arguments."
    )


def _inputs(plan: Plan) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs of the names and shapes that the plan's graph was traced with."""
    tensors = {name: _random(name, shape, kind) for name, shape, kind in plan.trace["inputs"]}
    return (), {**plan.trace["constants"], **tensors}


def _random(name: str, shape: list[int], dtype: str) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=generator).to(kind)
    return torch.full(shape, int("mask" in name), dtype=kind)  # a mask of zeros attends to nothing
