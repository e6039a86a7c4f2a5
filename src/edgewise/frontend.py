"""From a user's model to a clean torch.fx program: traced, functional, without asserts."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import operator
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from .errors import TraceError
from .ops import TABLE

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(__file__)


@dataclass(frozen=True, eq=False)
class Program:
    """What a graph keeps to run and rewrite its network.

    Args:
        module: a private, functional copy of the model as fx.
        args: the example inputs, in the order of its placeholders.
        values: for nodes that give numbers rather than tensors, what they gave on the example.
        doubled: the same when the batch is twice as large (empty if the model refuses that).
        batch: examples in `args`.
        training: whether the user's model was in train mode.
    """

    module: fx.GraphModule
    args: tuple[Any, ...]
    values: Mapping[str, Any]
    doubled: Mapping[str, Any]
    batch: int
    training: bool


class _Tracer(fx.Tracer):
    """torch.fx, stopping at every module that has a rule, and noting the source line."""

    def __init__(self, leaves: Sequence[type[nn.Module] | str]) -> None:
        super().__init__()
        self.leaves = tuple(leaves)
        self.last_line = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        classes = tuple(leaf for leaf in self.leaves if isinstance(leaf, type))
        if isinstance(m, classes) or module_qualified_name in self.leaves:
            return True
        return TABLE.find_module(m) is not None or _opaque(m)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.last_line = node.meta["source"] = _user_line()
        return node


def _opaque(module: nn.Module) -> bool:
    """A torch.nn layer without children: nothing to look into, so a rule must exist for it."""
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


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    leaves: Sequence[type[nn.Module] | str],
) -> tuple[fx.GraphModule, tuple[Any, ...]]:
    """The model as a functional fx program in eval mode, and the inputs of its placeholders.

    Raises:
        TraceError: torch.fx cannot follow the model; names the line and the way out.
    """
    try:
        snapshot = copy.deepcopy(model).eval()
    except Exception as error:
        raise TraceError(f"The model cannot be copied (copy.deepcopy): {error}") from error
    _functional_modules(snapshot)
    inputs, fixed = _bind(model, args, kwargs)
    tracer = _Tracer(leaves)
    try:
        graph = tracer.trace(snapshot, concrete_args=fixed)
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(_explain(model, error, tracer.last_line)) from error
    module = fx.GraphModule(tracer.root, graph, class_name=type(model).__name__)
    _drop_asserts(module.graph)
    _drop_constants(module.graph, fixed)
    _dropout_modules(module)
    _out_of_place(module.graph)
    module.graph.lint()
    module.recompile()
    return module, inputs


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


def _explain(model: nn.Module, error: Exception, last: str) -> str:
    frames = [
        f"{f.filename}:{f.lineno} ({f.line})"
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((_TORCH, _HERE))
    ]
    place = frames[-1] if frames else last or "an unknown line"
    return (
        f"{type(model).__name__} cannot be traced symbolically: {type(error).__name__} at {place}: "
        f"{error}\n{_advice(str(error))}"
    )


def _advice(message: str) -> str:
    if "item assignment" in message:
        return (
            "The code writes into a tensor in place, which a graph of data flows cannot express. "
            "Use an operator that returns a new tensor (torch.where, torch.cat, masked_fill)."
        )
    return (
        "The usual reason is Python control flow on the value of a tensor. Either move that code "
        "into a submodule and pass its class as a leaf, `ew.trace(model, x, leaves=[ThatModule])` "
        "with a rule for it (`ew.register(ThatModule, ew.Rule(...))`), or make the condition "
        "independent of tensor values."
    )


def _bind(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The tensor inputs in the order of forward's parameters; other arguments are constants."""
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TraceError(
            f"The example inputs do not fit {type(model).__name__}.forward{signature}: {error}. "
            "Pass them as a tuple, `ew.trace(model, (x,))`."
        ) from error
    for name, parameter in signature.parameters.items():
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if several and bound.arguments.get(name):
            raise TraceError(
                f"{type(model).__name__}.forward takes *{name}, which cannot be traced. Wrap "
                "the model in a module whose forward names its inputs."
            )
    bound.apply_defaults()
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            del bound.arguments[name]
    inputs = {name: value for name, value in bound.arguments.items() if holds_tensor(value)}
    fixed = {name: value for name, value in bound.arguments.items() if name not in inputs}
    return tuple(inputs.values()), fixed


def _functional_modules(model: nn.Module) -> None:
    """Activations must not overwrite their inputs: after pruning these may have other readers."""
    for module in model.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]


def _drop_constants(graph: fx.Graph, fixed: Mapping[str, Any]) -> None:
    """The placeholders that torch.fx leaves for constants; nothing reads them."""
    for node in list(graph.nodes):
        if node.op == "placeholder" and not node.users:
            name = str(node.target)
            if name.startswith("*") or name.rpartition("_")[0] in fixed:
                graph.erase_node(node)


def _drop_asserts(graph: fx.Graph) -> None:
    """Assertions hold nothing that the output needs; neither does anything else unused."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users and not _writes(node):
            graph.erase_node(node)


def _writes(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    method = node.op == "call_method" and str(name).endswith("_") and not str(name).endswith("__")
    return method or node.target is operator.setitem


def _dropout_modules(module: fx.GraphModule) -> None:
    """F.dropout(x, p, training=False) is frozen by tracing; a module follows train(), eval()."""
    classes: dict[Callable[..., Any], type[nn.Module]] = {
        F.dropout: nn.Dropout,
        F.dropout1d: nn.Dropout1d,
        F.dropout2d: nn.Dropout2d,
        F.dropout3d: nn.Dropout3d,
        F.alpha_dropout: nn.AlphaDropout,
    }
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in classes:
            p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            layer = classes[node.target](float(p)).eval()
            _replace_by_module(module, node, layer)
        elif getattr(node.target, "__name__", "") == "stochastic_depth":
            from torchvision.ops import StochasticDepth

            _replace_by_module(module, node, StochasticDepth(*node.args[1:3]).eval())


def _replace_by_module(module: fx.GraphModule, node: fx.Node, layer: nn.Module) -> None:
    path = f"{node.name}_module"
    module.add_submodule(path, layer)
    with module.graph.inserting_before(node):
        new = module.graph.call_module(path, (node.args[0] if node.args else node.kwargs["input"],))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


_FUNCTIONAL: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
    operator.imatmul: operator.matmul,
    F.relu_: F.relu,
    torch.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
}


def _out_of_place(graph: fx.Graph) -> None:
    """In-place operators become functional ones; later readers of the input get the result."""
    for node in list(graph.nodes):
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
            _rewire(graph, node)
        if node.op == "call_function" and node.target in _FUNCTIONAL:
            node.target = _FUNCTIONAL[node.target]
            _rewire(graph, node)
        elif _writes(node):
            if node.op != "call_method" or not hasattr(torch.Tensor, node.target.rstrip("_")):
                place = node.meta.get("source") or node.name
                raise TraceError(f"{node.target} at {place}: {_advice('item assignment')}")
            node.target = node.target.rstrip("_")
            _rewire(graph, node)


def _rewire(graph: fx.Graph, node: fx.Node) -> None:
    written = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(written, fx.Node):
        return
    order = {n: i for i, n in enumerate(graph.nodes)}
    for user in list(written.users):
        if order[user] > order[node]:
            user.replace_input_with(written, node)


def leaves_of(value: Any) -> list[Any]:
    """The leaves of nested lists, tuples, dicts and dataclasses, in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [x for f in dataclasses.fields(value) for x in leaves_of(getattr(value, f.name))]
    leaves = pytree.tree_leaves(value)
    return [
        x
        for leaf in leaves
        for x in (leaves_of(leaf) if dataclasses.is_dataclass(leaf) else [leaf])
    ]


def copies_of(value: Any) -> Any:
    """The same with its tensors copied, for code that may write into them."""
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, value)


def holds_tensor(value: Any) -> bool:
    """Whether there is a tensor anywhere in a value."""
    return any(isinstance(leaf, torch.Tensor) for leaf in leaves_of(value))


def attribute(module: nn.Module, path: str) -> Any:
    """What a dotted path leads to."""
    return operator.attrgetter(path)(module)
