"""The torch.fx front end: a model traced symbolically, stopping at modules that have a rule."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..errors import TraceError
from ..graph.operators.table import TABLE
from .cleanup import IN_PLACE, IN_PLACE_ADVICE, drop_unused
from .lengths import lengths_traced
from .program import as_module

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")  # and not torchvision
_HERE = os.path.dirname(os.path.dirname(__file__))


class _Proxy(fx.Proxy):
    """A traced value on which `+=` and its kind stay writes: torch.fx makes them `x = x + y`."""

    def __getattr__(self, k: str) -> fx.proxy.Attribute:
        return _Attribute(self, k)


class _Attribute(fx.proxy.Attribute):
    """An attribute of a traced value, likewise."""

    def __getattr__(self, k: str) -> fx.proxy.Attribute:
        return _Attribute(self, k)


def _in_place(target: Any) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    def operate(self: fx.Proxy, other: Any) -> fx.Proxy:
        name = IN_PLACE[target].__name__  # that of the operator it becomes
        return self.tracer.create_proxy("call_function", target, (self, other), {}, name)

    return operate


for _kind in (_Proxy, _Attribute):
    for _target in IN_PLACE:
        setattr(_kind, f"__{_target.__name__}__", _in_place(_target))


class _Tracer(fx.Tracer):
    """torch.fx, stopping at every module that has a rule, and noting the source line."""

    proxy_buffer_attributes = True  # so that methods of buffers may take traced sizes

    def __init__(self, leaves: Sequence[type[nn.Module] | str]) -> None:
        home: Any = sys.modules.get("torchvision.ops.deform_conv")  # not followed, for its checks
        super().__init__(autowrap_functions=() if home is None else (home.deform_conv2d,))
        self._autowrap_search += [] if home is None else [home, sys.modules["torchvision.ops"]]
        self.leaves = tuple(leaves)
        self.last_line = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        classes = tuple(leaf for leaf in self.leaves if isinstance(leaf, type))
        if isinstance(m, classes) or module_qualified_name in self.leaves:
            return True
        return TABLE.find_module(m) is not None or _opaque(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.last_line = node.meta["source"] = _user_line()
        return node


def _opaque(module: nn.Module) -> bool:
    """A torch.nn layer without children: nothing to look into, so a rule must exist for it."""
    if isinstance(module, nn.Sequential):
        return False  # an empty one is an identity
    return type(module).__module__.startswith("torch.nn") and not any(module.children())


def _user_line() -> str:
    """The innermost line of code on the stack that is neither torch's nor ours."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, _HERE, "<")):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def traced(
    model: nn.Module, fixed: Mapping[str, Any], leaves: Sequence[type[nn.Module] | str]
) -> fx.GraphModule:
    """The model as an fx program.

    Args:
        model: a private copy, in the mode to trace.
        fixed: arguments of forward that are constants.
        leaves: module classes or paths to treat as one operator each.

    Raises:
        TraceError: torch.fx cannot follow the model; names the line and the way out.
    """
    tracer = _Tracer(leaves)
    try:
        with lengths_traced(model):
            graph = tracer.trace(model, concrete_args=dict(fixed))
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(_explain(model, error, tracer.last_line)) from error
    module = as_module(tracer.root, graph, type(model).__name__)
    drop_unused(module.graph)
    _drop_constants(module.graph, fixed)
    return module


def _explain(model: nn.Module, error: Exception, last: str) -> str:
    frames = [
        f"{f.filename}:{f.lineno} ({f.line})"
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((_TORCH, _HERE))
    ]
    place = frames[-1] if frames else last or "an unknown line"
    if "co_varnames" in str(error):  # torch.fx counts the arguments of what a decorator wraps
        return (
            f"{type(model).__name__} cannot be traced symbolically: torch.fx does not see the "
            "arguments of its forward, which is wrapped by a decorator or takes **kwargs."
        )
    return (
        f"{type(model).__name__} cannot be traced symbolically: {type(error).__name__} at {place}: "
        f"{error}\n{_advice(str(error))}"
    )


def _advice(message: str) -> str:
    if "item assignment" in message:
        return IN_PLACE_ADVICE
    leaf = (
        "What is to be pruned may be traced alone, `ew.trace(model, x, part='backbone')`; or code "
        "that torch.fx cannot follow may be moved into a submodule whose class is a leaf, "
        "`ew.trace(model, x, leaves=[ThatModule])` with a rule for it (`ew.register(ThatModule, "
        "ew.Rule(...))`)."
    )
    if "control flow" in message:
        return f"Python decides there by the value of a tensor. {leaf}"
    return leaf


def _drop_constants(graph: fx.Graph, fixed: Mapping[str, Any]) -> None:
    """The placeholders that torch.fx leaves for constants; nothing reads them."""
    for node in list(graph.nodes):
        if node.op == "placeholder" and not node.users:
            name = str(node.target)
            if name.startswith("*") or name.rpartition("_")[0] in fixed:
                graph.erase_node(node)
