"""Cleaning a traced program: functional, without asserts, and nothing that only looks like data."""

import dataclasses
import inspect
import operator
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from ..errors import TraceError
from ..graph.operators.runtime import largest, smallest

IN_PLACE_ADVICE = (
    "The code writes into a tensor in place, which a graph of data flows cannot express. "
    "Use an operator that returns a new tensor (torch.where, torch.cat, masked_fill)."
)


def restore_outputs(graph: fx.Graph, expected: Any) -> None:
    """Make the dicts that tracing returns what the model returns: an OrderedDict, a ModelOutput."""
    output = next(iter(graph.find_nodes(op="output")))
    value, kind = output.args[0], type(expected)
    if not isinstance(value, dict) or not isinstance(expected, dict) or kind is dict:
        return
    with graph.inserting_before(output):
        made = (
            graph.call_function(kind, (), dict(value))
            if dataclasses.is_dataclass(kind)
            else graph.call_function(kind, (dict(value),))
        )
    output.args = (made,)


def drop_unused(graph: fx.Graph) -> None:
    """Assertions hold nothing that the output needs; neither does anything else unused."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users and not writes(node):
            graph.erase_node(node)


def writes(node: fx.Node) -> bool:
    """Whether a node writes into one of its arguments, as its name says."""
    if node.op == "call_module" and node.graph.owning_module is not None:
        module = node.graph.owning_module.get_submodule(str(node.target))
        return getattr(module, "inplace", None) is True
    if isinstance(node.kwargs.get("out"), fx.Node) or mutated(node.target):
        return True
    if node.op == "call_function" and (node.kwargs.get("inplace") or node.target in _FUNCTIONAL):
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    method = node.op == "call_method" and str(name).endswith("_") and not str(name).endswith("__")
    return method or node.target is operator.setitem


def written(node: fx.Node) -> fx.Node | None:
    """The argument that a node which writes writes into; the first, where there are several."""
    place, name = next(iter(mutated(node.target)), (0, "input"))
    given = node.args[place] if len(node.args) > place else node.kwargs.get(name)
    value = node.kwargs.get("out") or given
    return value if isinstance(value, fx.Node) else None


def mutated(target: Any) -> list[tuple[int, str]]:
    """The places and names of the arguments that an ATen or custom operator writes into."""
    schema = getattr(target, "_schema", None)
    arguments = schema.arguments if schema is not None and schema.is_mutable else ()
    known = [(i, a) for i, a in enumerate(arguments) if a.alias_info is not None]
    return [(i, a.name) for i, a in known if a.alias_info.is_write]


IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.imatmul: operator.matmul,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    operator.ilshift: operator.lshift,
    operator.irshift: operator.rshift,
}

_FUNCTIONAL: dict[Any, Any] = {
    **IN_PLACE,
    F.relu_: F.relu,
    torch.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
}


def name_inplace(graph: fx.Graph) -> None:
    """Write `F.relu(x, True)` as `F.relu(x, inplace=True)`."""
    for node in graph.nodes:
        if node.op != "call_function" or not any(a is True for a in node.args):
            continue
        try:
            names = list(inspect.signature(node.target).parameters)
        except (TypeError, ValueError):  # an operator written in C
            continue
        place = names.index("inplace") if "inplace" in names else len(node.args)
        node.kwargs = {**node.kwargs, **dict(zip(names[place:], node.args[place:], strict=False))}
        node.args = node.args[:place]


def reshape_views(graph: fx.Graph) -> None:
    """`view` becomes `reshape`: after pruning its input may lie in memory in another way."""
    for node in graph.nodes:
        viewed = node.op == "call_method" and node.target in ("view", "view_as")
        if viewed and not any(isinstance(a, torch.dtype) for a in node.args):
            node.target = "reshape" if node.target == "view" else "reshape_as"


def out_of_place(graph: fx.Graph) -> None:
    """In-place operators become functional ones; later readers of the input get the result."""
    for node in list(graph.nodes):
        out = node.kwargs.get("out")
        if isinstance(out, fx.Node):
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != "out"}
            _rewire(graph, node, out)
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
            _rewire(graph, node)
        if node.op == "call_function" and node.target in _FUNCTIONAL:
            node.target = _FUNCTIONAL[node.target]
            _rewire(graph, node)
        elif node.op == "call_module" and writes(node):
            _rewire(graph, node)
        elif writes(node):
            if node.op != "call_method" or not hasattr(torch.Tensor, node.target.rstrip("_")):
                place = node.meta.get("source") or node.name
                raise TraceError(f"{node.target} at {place}: {IN_PLACE_ADVICE}")
            node.target = node.target.rstrip("_")
            _rewire(graph, node)


_RANKED = ("max", "min", "median", "mode", "sort", "topk", "kthvalue", "cummax", "cummin")
_EXTREMES = {"max": largest, "min": smallest}


def name_members(graph: fx.Graph) -> None:
    """`x.sort().values` becomes `x.sort()[0]`; a maximum of which only the values are read, one
    operator."""
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", node.target)
        if node.op not in ("call_function", "call_method") or name not in _RANKED:
            continue
        for user in list(node.users):
            if user.target is getattr and user.args[1] in ("values", "indices"):
                user.target, user.args = operator.getitem, (node, int(user.args[1] == "indices"))
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        picks = [user.args if user.target is operator.getitem else () for user in node.users]
        if name in _EXTREMES and isinstance(dim, int) and set(picks) <= {(node, 0)}:
            node.op, node.target = "call_function", _EXTREMES[name]
            for user in list(node.users):
                user.replace_all_uses_with(node)
                graph.erase_node(user)


_SHAPED = {"expand_as": "expand", "reshape_as": "reshape", "view_as": "reshape"}
_LIKE = {
    torch.zeros_like: torch.zeros,
    torch.ones_like: torch.ones,
    torch.full_like: torch.full,
    torch.empty_like: torch.empty,
}
_NEW = {
    "new_zeros": torch.zeros,
    "new_ones": torch.ones,
    "new_full": torch.full,
    "new_empty": torch.empty,
}


def shapes_only(graph: fx.Graph) -> None:
    """Operators that read nothing of a tensor but its shape read the shape.

    Otherwise a tensor of zeros would count as data that flows from there to the output.
    """
    for node in list(graph.nodes):
        if node.op == "call_method" and node.target in _SHAPED and len(node.args) == 2:
            value, other = node.args
            node.args = (value, _attribute(graph, node, other, "shape"))
            node.target = _SHAPED[str(node.target)]
        elif node.op == "call_function" and node.target in _LIKE and node.args:
            _make_of(
                graph, node, _LIKE[node.target], _attribute(graph, node, node.args[0], "shape")
            )
        elif node.op == "call_method" and node.target in _NEW:
            node.op = "call_function"
            _make_of(graph, node, _NEW[str(node.target)])


def _make_of(graph: fx.Graph, node: fx.Node, function: Any, *shape: fx.Node) -> None:
    """Turn a node into a new tensor of its first argument's dtype and device."""
    other, *rest = node.args
    kind = {name: _attribute(graph, node, other, name) for name in ("dtype", "device")}
    given = {k: v for k, v in node.kwargs.items() if k != "memory_format" and v is not None}
    node.args, node.kwargs, node.target = (*shape, *rest), {**kind, **given}, function


def _attribute(graph: fx.Graph, node: fx.Node, of: Any, name: str) -> fx.Node:
    with graph.inserting_before(node):
        return graph.call_function(getattr, (of, name))


def _rewire(graph: fx.Graph, node: fx.Node, into: fx.Node | None = None) -> None:
    source = written(node) if into is None else into
    if source is None:
        return
    order = {n: i for i, n in enumerate(graph.nodes)}
    for user in list(source.users):
        if order[user] > order[node]:
            user.replace_input_with(source, node)
