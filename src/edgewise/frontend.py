"""From a user's model to a clean torch.fx program, by one of two front ends."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import fx, nn

from .errors import TraceError
from .exported import exported
from .functional import batch_norm_modules, depends_on_mode, drop_unused, follow_modes, out_of_place
from .program import holds_tensor
from .symbolic import traced

FrontEnd = Literal["torch.fx", "torch.export"]


def capture(
    model: nn.Module,
    inputs: Mapping[str, Any],
    fixed: Mapping[str, Any],
    leaves: Sequence[type[nn.Module] | str],
    frontend: FrontEnd,
) -> fx.GraphModule:
    """The model as a functional fx program in eval mode; the model itself is not touched.

    Args:
        model: the user's model.
        inputs: the arguments of forward that hold tensors; they become placeholders.
        fixed: its other arguments, which become constants.
        leaves: module classes or paths to treat as one operator each (torch.fx).
        frontend: which of the two follows the model.

    Raises:
        TraceError: the front end cannot follow the model; names the line and the way out.
    """
    snapshot = _snapshot(model)
    if frontend == "torch.fx":
        module = traced(snapshot, fixed, leaves)
        follow_modes(module.graph, _in_train_mode(model, module.graph, fixed, leaves))
    else:
        module = exported(snapshot, inputs, fixed)
        follow_modes(module.graph, None)
    batch_norm_modules(module)
    drop_unused(module.graph)
    out_of_place(module.graph)
    module.graph.lint()
    module.recompile()
    module.eval()
    return module


def _snapshot(model: nn.Module) -> nn.Module:
    try:
        snapshot = copy.deepcopy(model).eval()
    except Exception as error:
        raise TraceError(f"The model cannot be copied (copy.deepcopy): {error}") from error
    _functional_modules(snapshot)
    return snapshot


def _in_train_mode(
    model: nn.Module, graph: fx.Graph, fixed: Mapping[str, Any], leaves: Sequence[Any]
) -> fx.Graph | None:
    """The same trace in train mode, where something in it may depend on the mode."""
    if not depends_on_mode(graph):
        return None
    try:
        return traced(_snapshot(model).train(), fixed, leaves).graph
    except TraceError:
        return None


def refuse_compiled(model: nn.Module) -> None:
    """Raise TraceError if the model, or a module in it, has no Python code to trace."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            kind = "TorchScript"
        elif kind != "OptimizedModule":  # what torch.compile returns
            continue
        raise TraceError(
            f"{f'Module {name!r}' if name else 'The model'} is a compiled module ({kind}), which "
            "cannot be traced or rewritten. Pass the original nn.Module."
        )


def bind(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that hold tensors, in the order of forward's parameters, and the others."""
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
    return inputs, {name: value for name, value in arguments.items() if name not in inputs}


def _functional_modules(model: nn.Module) -> None:
    """Activations must not overwrite their inputs: after pruning these may have other readers."""
    for module in model.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]
