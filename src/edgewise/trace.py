"""From a model and example inputs to a Graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from .builder import Builder
from .errors import NoUnitsError, TraceError, UnknownOperatorError
from .frontend import FrontEnd, bind, capture, refuse_compiled
from .graph import Graph
from .program import Program, copies_of, holds_tensor, leaves_of
from .units import with_units


def trace(
    model: nn.Module,
    args: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    granularity: Sequence[str] | str = ("edge", "layer"),
    leaves: Sequence[type[nn.Module] | str] = (),
    frontend: FrontEnd | None = None,
) -> Graph:
    """The dataflow graph of a model.

    The model is traced in eval mode on a private copy, run once on the example inputs, and the
    traced program is compared with the model itself. The model is not changed; hooks on its
    modules are copied with it and run wherever the copies do.

    torch.fx reads the model's code as it is written, and is tried first. Where it cannot follow
    (Hugging Face models, Python that depends on shapes), torch.export does; `graph.frontend` and
    `graph.summary()` name the one that did.

    Args:
        model: any `nn.Module`.
        args: example inputs, a tuple (or one tensor); dimension 0 is the batch.
        kwargs: example keyword inputs.
        granularity: kinds of units: "edge" (whole connections and branches), "layer" (layers
            bypassed by identity), or "raw" (every edge by itself).
        leaves: module classes or paths to treat as one operator each; they need a rule, and
            torch.fx.
        frontend: "torch.fx" or "torch.export", to force one; None tries both in this order.

    Returns:
        The graph; `graph.units` are what a mask can remove.

    Raises:
        TraceError: the model cannot be traced, or the traced program gives other outputs.
        UnknownOperatorError: an operator has no rule; names it, its line and the way out.
        NoUnitsError: nothing in the model can be removed.

    Example:
        >>> graph = ew.trace(model, (torch.randn(1, 3, 32, 32),))  # doctest: +SKIP
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"ew.trace takes an nn.Module, got {type(model).__name__}.")
    if not isinstance(args, torch.Tensor | list | tuple):
        raise TraceError(f"Example inputs are a tensor or a tuple, got {type(args).__name__}.")
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    kinds = (granularity,) if isinstance(granularity, str) else tuple(granularity)
    refuse_compiled(model)
    _check_inputs(model, args, kwargs or {})
    expected = _reference(model, args, kwargs or {})
    inputs, fixed = bind(model, args, kwargs or {})
    problems: list[TraceError] = []
    for choice in _choices(frontend, leaves):
        try:
            module = capture(model, inputs, fixed, leaves, choice)
            bare = _graph(model, module, inputs, fixed, expected, choice)
            break
        except TraceError as problem:
            problems.append(problem)
    else:
        raise _failure(model, problems)
    graph = with_units(bare, kinds)
    if not graph.units:
        raise NoUnitsError(_why_no_units(model, kinds))
    return graph


def _choices(frontend: FrontEnd | None, leaves: Sequence[Any]) -> tuple[FrontEnd, ...]:
    known = get_args(FrontEnd)
    if frontend is not None and frontend not in known:
        raise TraceError(f"frontend is one of {', '.join(known)}; got {frontend!r}.")
    if leaves and frontend == "torch.export":
        raise TraceError("`leaves` need torch.fx: torch.export looks into every module.")
    if frontend is not None:
        return (frontend,)
    return ("torch.fx",) if leaves else ("torch.fx", "torch.export")


def _failure(model: nn.Module, problems: list[TraceError]) -> TraceError:
    """The error of all front ends: an operator without a rule is what a user can help."""
    for problem in problems:
        if isinstance(problem, UnknownOperatorError):
            return problem
    if len(problems) == 1:
        return problems[0]
    return TraceError(f"{problems[0]}\nThe other front end fails too: {problems[1]}")


def _graph(
    model: nn.Module, module: fx.GraphModule, inputs: Mapping[str, Any], fixed: Mapping[str, Any],
    expected: Any, frontend: FrontEnd,
) -> Graph:  # fmt: skip
    """Vertices and edges of a captured program, which must do what the model does."""
    args = tuple(inputs.values())
    values = _run(module, args)
    _compare(expected, values["output"], model)
    doubled = _run_doubled(module, args)
    program = Program(
        module=module,
        args=args,
        fixed=fixed,
        values={k: v for k, v in values.items() if not holds_tensor(v)},
        doubled={k: v for k, v in doubled.items() if not holds_tensor(v)},
        batch=_batch_size(args) if doubled else 1,
        modes={name: part.training for name, part in model.named_modules()},
    )
    return Builder(program, values, doubled).build(frontend)


def _why_no_units(model: nn.Module, kinds: tuple[str, ...]) -> str:
    reasons = {
        "edge": "every edge lies on every path from input to output (a plain chain), so that "
        "removing any would disconnect the output",
        "layer": "no layer that takes MACs has an output of its input's shape",
        "raw": "it has no edge at all",
    }
    why = "; ".join(reasons[kind] for kind in kinds)
    more = [kind for kind in ("edge", "layer") if kind not in kinds and "raw" not in kinds]
    hint = f' Try granularity=("edge", "layer"), which offers {more[0]} units too.' if more else ""
    return f"{type(model).__name__} has no unit to remove: {why}.{hint}"


def _check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    devices = {p.device for p in model.parameters()} | {b.device for b in model.buffers()}
    for value in pytree.tree_leaves((args, dict(kwargs))):
        if isinstance(value, torch.Tensor) and devices and value.device not in devices:
            raise TraceError(
                f"An example input is on {value.device}, the model on "
                f"{', '.join(sorted(map(str, devices)))}. Move one of them with .to(device)."
            )
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(parameter, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise TraceError(
                f"Parameter {name!r} is not initialised yet (a lazy module). Run the model once on "
                "real input, then trace it."
            )
        if parameter.is_meta:
            raise TraceError(f"Parameter {name!r} is on the meta device. Load the weights first.")
    if not holds_tensor((args, dict(kwargs))):
        raise TraceError("The example inputs hold no tensor. Pass e.g. `ew.trace(model, (x,))`.")


def _reference(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the user's own model gives in eval mode, its modes put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            return model(*copies_of(args), **copies_of(dict(kwargs)))
    except Exception as error:
        shapes = [
            tuple(v.shape) for v in pytree.tree_leaves((args, dict(kwargs))) if hasattr(v, "shape")
        ]
        raise TraceError(
            f"{type(model).__name__} fails on the example inputs of shape "
            f"{', '.join(map(str, shapes))}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Recorder(fx.Interpreter):
    """Runs a program and keeps what each node gave, tensors as meta tensors."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.seen[n.name] = value if n.op == "output" else _without_data(value)
        return value


def _without_data(value: Any) -> Any:
    def meta(leaf: Any) -> Any:
        return leaf.detach().to("meta") if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(meta, value)


def _run(module: fx.GraphModule, args: tuple[Any, ...]) -> dict[str, Any]:
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*copies_of(args))
    return recorder.seen


def _run_doubled(module: fx.GraphModule, args: tuple[Any, ...]) -> dict[str, Any]:
    """The same with every input repeated along dimension 0; empty where the model refuses it."""

    batch = _batch_size(args)

    def twice(value: Any) -> Any:
        grows = isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == batch
        return torch.cat([value, value]) if grows else value

    try:
        return _run(module, tuple(pytree.tree_map(twice, a) for a in args))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return {}


def _batch_size(args: tuple[Any, ...]) -> int:
    """Dimension 0 of the first input; inputs of another size there are not batched."""
    leaves = pytree.tree_leaves(args)
    sizes = (v.shape[0] for v in leaves if isinstance(v, torch.Tensor) and v.ndim)
    return int(next(sizes, 1))


def _compare(expected: Any, found: Any, model: nn.Module) -> None:
    pairs = zip(leaves_of(expected), leaves_of(found), strict=False)
    for a, b in pairs:
        if isinstance(a, torch.Tensor) and not torch.allclose(
            a, b, rtol=1e-4, atol=1e-5, equal_nan=True
        ):
            raise TraceError(
                f"The traced program of {type(model).__name__} gives other outputs than the model "
                f"(largest difference {(a - b).abs().max().item():.3g}). The model probably writes "
                "into a tensor through a view, draws random numbers in eval mode, or keeps state "
                "between calls."
            )
