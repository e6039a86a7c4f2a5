"""From a user's model to a clean torch.fx program, by one of two front ends."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import fx, nn

from ..errors import TooLargeError, TraceError
from ..values.nested import holds_tensor
from .aliasing import settle_writes
from .cleanup import (
    drop_unused,
    name_inplace,
    name_members,
    out_of_place,
    reshape_views,
    restore_outputs,
    shapes_only,
)
from .dtypes import follow_dtypes
from .export_frontend import exported
from .fx_frontend import traced
from .train_eval import aligned, batch_norm_modules, follow_modes
from .whole import copied

FrontEnd = Literal["torch.fx", "torch.export"]
MODAL = "edgewise_modal"  # marks a program whose model runs other operators in train mode
MOST_OPERATORS = 20_000


def capture(
    model: nn.Module,
    inputs: Mapping[str, Any],
    fixed: Mapping[str, Any],
    leaves: Sequence[type[nn.Module] | str],
    frontend: FrontEnd,
    expected: Any = None,
) -> fx.GraphModule:
    """The model as a functional fx program in eval mode; the model itself is not touched.

    Args:
        model: the user's model.
        inputs: the arguments of forward that hold tensors; they become placeholders.
        fixed: its other arguments, which become constants.
        leaves: module classes or paths to treat as one operator each (torch.fx).
        frontend: which of the two follows the model.
        expected: what the model gives, to return the same kinds of dicts.

    Raises:
        TraceError: the front end cannot follow the model, or makes a program in which a write in
            place reaches what other values read; names the line and the way out.
    """
    snapshot = _snapshot(model)
    if frontend == "torch.fx":
        module = traced(snapshot, fixed, leaves)
        _refuse_giants(module)
        restore_outputs(module.graph, expected)
        follow_dtypes(
            module, inputs, lambda dtype: traced(_snapshot(model).to(dtype), fixed, leaves).graph
        )
        training = _in_train_mode(model, fixed, leaves)
        module.meta[MODAL] = training is not None and aligned(module.graph, training) is None
        follow_modes(module.graph, training)
        name_inplace(module.graph)
        settle_writes(module, tuple(inputs.values()))
    else:
        module = exported(snapshot, inputs, fixed)
        _refuse_giants(module)
        follow_modes(module.graph, None)
    batch_norm_modules(module)
    drop_unused(module.graph)
    reshape_views(module.graph)
    out_of_place(module.graph)
    shapes_only(module.graph)
    name_members(module.graph)
    _functional_modules(module)
    module.graph.lint()
    module.recompile()
    module.eval()
    return module


def _refuse_giants(module: fx.GraphModule) -> None:
    if len(module.graph.nodes) <= MOST_OPERATORS:
        return
    scopes = Counter(
        next(iter((node.meta.get("nn_module_stack") or {"": ("the model",)}).values()))[0]
        for node in module.graph.nodes
    )
    where, count = scopes.most_common(1)[0]
    raise TooLargeError(
        f"The network has {len(module.graph.nodes):,} operators, most of them ({count:,}) in "
        f"{where!r}; up to {MOST_OPERATORS:,} can be searched. A Python loop over time steps or "
        "pixels is the usual reason: give it a shorter example input, or put the loop into a "
        "module of its own and name that as a leaf, `ew.trace(model, x, leaves=[ThatModule])`."
    )


def _snapshot(model: nn.Module) -> nn.Module:
    return copied(model).eval()


def _in_train_mode(
    model: nn.Module, fixed: Mapping[str, Any], leaves: Sequence[Any]
) -> fx.Graph | None:
    """The same trace in train mode."""
    try:
        return traced(_snapshot(model).train(), fixed, leaves).graph
    except TraceError:
        return None


def bind(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """The arguments that hold tensors, the others, and the names of all, in forward's order."""
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TraceError(
            f"The example inputs do not fit {type(model).__name__}.forward{signature}: {error}. "
            "Pass them as a tuple, `ew.trace(model, (x,))`."
        ) from error
    bound.apply_defaults()
    arguments: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        value = bound.arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL and value:
            raise TraceError(
                f"{type(model).__name__}.forward takes *{name}, which has no names to call inputs "
                "by. Wrap the model in a module whose forward names its inputs."
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= value
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            arguments[name] = value
    inputs = {name: value for name, value in arguments.items() if holds_tensor(value)}
    fixed = {name: value for name, value in arguments.items() if name not in inputs}
    return inputs, fixed, tuple(arguments)


def _functional_modules(model: nn.Module) -> None:
    """Activations must not overwrite their inputs: after pruning these may have other readers."""
    for module in model.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]
