"""The flat ATen program of torch.export, restated as calls of leaf modules and torch functions."""

import dataclasses
import operator
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from ..errors import TraceError
from ..graph.operators.table import TABLE
from ..values.nested import holds_tensor, named_tensors
from .aten import Restated, restate
from .dtypes import DTYPE, IDLE
from .program import module_stack, picked
from .train_eval import DIMENSIONS

_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
_ASSERTS = re.compile(r"_assert|_guards_fn|sym_constrain|_check")
_NOWHERE = "_empty_nn_module_stack_from_metadata_hook"  # torch.export's name for no module
_USER_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class Restatement:
    """Rebuilds a flat program node by node.

    Args:
        flat: the exported program.
        root: the model, shallowly copied; constants of the program are added to it.
        given: the arguments of forward by name; those that hold tensors become placeholders.
    """

    def __init__(self, flat: fx.GraphModule, root: nn.Module, given: Mapping[str, Any]) -> None:
        self.flat, self.root, self.given = flat, root, given
        self.graph = fx.Graph()
        self.env: dict[fx.Node, Any] = {}
        self.leaves: list[Any] = []
        self._device_node: fx.Node | None = None
        self.leaf_calls = _single_operator_calls(flat.graph, root)

    def run(self) -> fx.Graph:
        """The graph of calls on `root`.

        Raises:
            TraceError: the inputs are not those that were exported, or an output cannot be rebuilt.
        """
        self._placeholders()
        self._body(self.flat)
        self.graph.lint()
        return self.graph

    def _placeholders(self) -> None:
        """One placeholder for each argument of forward; members of nested ones are picked."""
        leaves = self.leaves
        for name, value in self.given.items():
            if holds_tensor(value):
                leaves += self._members(self.graph.placeholder(name), value)
            else:
                leaves += pytree.tree_leaves(value)
        flat = [n for n in self.flat.graph.nodes if n.op == "placeholder"]
        if len(flat) != len(leaves):
            raise TraceError("torch.export changed the number of inputs.")
        self.env.update(zip(flat, leaves, strict=True))

    def _members(self, node: fx.Node, value: Any) -> list[Any]:
        return [
            picked(self.graph, node, path) if isinstance(leaf, torch.Tensor) else leaf
            for path, leaf in pytree.tree_flatten_with_path(value)[0]
        ]

    def _body(self, module: fx.GraphModule) -> Any:
        """Restate the nodes of a program; what its output node returns, if it is a region."""
        for node in module.graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "output":
                return self._output(node) if module is self.flat else self._value(node.args[0])
            if node.op == "get_attr":
                self.env[node] = self._constant(module, node)
            elif not _ASSERTS.search(str(node.target)):
                self.env[node] = self._call(module, node)
        return None

    def _value(self, value: Any) -> Any:
        return fx.map_arg(value, lambda n: self.env[n])

    def _constant(self, module: fx.GraphModule, node: fx.Node) -> Any:
        path = str(node.target)
        value = operator.attrgetter(path)(module)
        if isinstance(value, fx.GraphModule):
            return value
        try:
            known = operator.attrgetter(path)(self.root) is not None
        except AttributeError:
            known = False
        if not known:
            path = path.replace(".", "_")
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.root.register_buffer(path, value, persistent=False)
            else:
                setattr(self.root, path, value)
        return self.graph.get_attr(path)

    def _call(self, module: fx.GraphModule, node: fx.Node) -> Any:
        name = getattr(node.target, "__name__", str(node.target))
        if name in _INLINED:
            return self._inlined(module, node)
        args, kwargs = self._value((node.args, node.kwargs))
        if node.target is operator.getitem and isinstance(args[0], tuple):
            return args[0][args[1]]
        path = self.leaf_calls.get(node)
        if path is not None:
            return self._noted(self.graph.call_module(path, (self._value(_data(node)[0]),)), node)
        if (cell := _recurrent(node, self.root)) is not None:
            return self._recurring(cell, node, args)
        new = restate(node, args, kwargs)
        if not isinstance(new, Restated):
            return new
        if isinstance(new.kwargs.get("device"), torch.device):
            new = replace(new, kwargs={**new.kwargs, "device": self._device()})
        kind = "call_method" if isinstance(new.target, str) else "call_function"
        created = self.graph.create_node(kind, new.target, new.args, new.kwargs, node.name)
        created.meta[DTYPE] = getattr(node.meta.get("val"), "dtype", None)
        if new.target == "to":
            kinds = {value.meta["val"].dtype for value in (node, *node.all_input_nodes[:1])}
            created.meta[IDLE] = len(kinds) == 1
        self._noted(created, node)
        return created if new.first_of == 1 else (created, *[None] * (new.first_of - 1))

    def _recurring(self, path: str, node: fx.Node, args: tuple[Any, ...]) -> Any:
        """The call of a recurrent module, whose results are nested otherwise than the operator's.

        A first state that the module made itself is not written down.
        """
        made = [n.meta.get("nn_module_stack") for n in pytree.tree_leaves(node.args[1])]
        own = node.meta["nn_module_stack"]
        state = tuple(args[1]) if isinstance(args[1], list) else args[1]
        given = () if all(stack == own for stack in made) else (state,)
        called = self._noted(self.graph.call_module(path, (args[0], *given)), node)

        def member(of: fx.Node, place: int) -> fx.Node:
            return self._noted(self.graph.call_function(operator.getitem, (of, place)), node)

        results = len(node.target._schema.returns)  # type: ignore[union-attr]
        if results < 3:  # one tensor, a pair of them, or an output and a pair of states
            return called
        state = member(called, 1)
        return member(called, 0), member(state, 0), member(state, 1)

    def _device(self) -> fx.Node:
        """The device of the first input: what the program makes must follow it."""
        if self._device_node is None:
            first = next(v for v in self.leaves if isinstance(v, fx.Node))
            self._device_node = self.graph.call_function(getattr, (first, "device"))
        return self._device_node

    def _noted(self, new: fx.Node, node: fx.Node) -> fx.Node:
        new.meta["source"] = _source(node)
        new.meta[DIMENSIONS] = getattr(pytree.tree_leaves(node.meta.get("val"))[0], "ndim", None)
        stack = node.meta.get("nn_module_stack")
        if stack and _NOWHERE not in stack:
            new.meta["nn_module_stack"] = stack
        return new

    def _inlined(self, module: fx.GraphModule, node: fx.Node) -> Any:
        """The operators of a no_grad or autocast region; a region changes no value here."""
        region = next(a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr")
        inner: fx.GraphModule = operator.attrgetter(str(region.target))(module)
        given = node.args[list(node.args).index(region) + 1 :]
        holders = [n for n in inner.graph.nodes if n.op == "placeholder"]
        self.env.update({h: self._value(v) for h, v in zip(holders, given, strict=True)})
        return self._body(inner)

    def _output(self, node: fx.Node) -> None:
        leaves = list(self._value(node.args[0]))
        spec = self.flat._out_spec
        self.graph.output(self._rebuilt(spec, leaves))

    def _rebuilt(self, spec: Any, leaves: list[Any]) -> Any:
        """The model's own output structure, made of explicit nodes."""
        if spec.is_leaf():
            return leaves.pop(0)
        members = [self._rebuilt(child, leaves) for child in spec.children()]
        if spec.type in (list, tuple, immutable_list):
            return (tuple if spec.type is tuple else list)(members)
        if spec.type in (dict, immutable_dict):
            return dict(zip(spec.context, members, strict=True))
        return self._constructed(spec, members)

    def _constructed(self, spec: Any, members: list[Any]) -> fx.Node:
        kind = spec.type
        if kind is OrderedDict:
            return self.graph.call_function(kind, (dict(zip(spec.context, members, strict=True)),))
        if hasattr(kind, "_fields"):
            return self.graph.call_function(kind, tuple(members))
        names = _field_names(spec)
        if names is None or len(names) != len(members):
            raise TraceError(
                f"The model returns a {kind.__name__}, whose members have no names to rebuild it "
                "from. Return tensors, tuples, dicts or dataclasses (for a language model, pass "
                "kwargs={..., 'use_cache': False})."
            )
        return self.graph.call_function(kind, (), dict(zip(names, members, strict=True)))


def _field_names(spec: Any) -> list[str] | None:
    """Keyword names of the members of a dataclass or of a mapping with fields."""
    if dataclasses.is_dataclass(spec.type) and isinstance(spec.context, list | tuple):
        context = spec.context
        while len(context) and isinstance(context[0], list | tuple):
            context = context[0]
        return [str(name) for name in context]
    return None


def _data(node: fx.Node) -> list[fx.Node]:
    """The inputs of a flat call that are neither parameters nor buffers."""
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return [n for n in leaves if isinstance(n, fx.Node) and n.op != "get_attr"]


def _single_operator_calls(graph: fx.Graph, root: nn.Module) -> dict[fx.Node, str]:
    """Flat nodes that are all a call of a leaf module does, with the path of that module."""
    calls: dict[fx.Node, tuple[str, str]] = {}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op == "call_function" and stack and not _ASSERTS.search(str(node.target)):
            calls[node] = (list(stack)[-1], (module_stack(node) or ("",))[-1])
    count = Counter(calls.values())
    return {
        node: path
        for node, (key, path) in calls.items()
        if count[key, path] == 1 and path and _stands_for(node, path, root)
    }


def _recurrent(node: fx.Node, root: nn.Module) -> str | None:
    """The path of the recurrent module of which a flat node is the call, if it is one."""
    stack, name = module_stack(node), getattr(getattr(node.target, "_schema", None), "name", "")
    if not stack or not name.startswith(("aten::lstm", "aten::gru", "aten::rnn_")):
        return None
    path = stack[-1]
    weights = {str(n.target) for n in pytree.tree_leaves(node.args[2:]) if isinstance(n, fx.Node)}
    if (module := _ruled(root, path)) is None:
        return None
    return path if weights == {f"{path}.{name}" for name, _ in module.named_parameters()} else None


def _stands_for(node: fx.Node, path: str, root: nn.Module) -> bool:
    """Whether calling the module does what the node does: same parameters, one data input."""
    module = _ruled(root, path)
    if module is None or len(_data(node)) != 1:
        return False
    own = {f"{path}.{name}" for name in named_tensors(module)}
    read = {str(n.target) for n in node.all_input_nodes if n.op == "get_attr"}
    idle = {f"{path}.num_batches_tracked"}
    return read <= own and own - idle <= read


def _ruled(root: nn.Module, path: str) -> nn.Module | None:
    """The module of a path, if there is one with a rule."""
    try:
        module = root.get_submodule(path)
    except AttributeError:
        return None
    return module if TABLE.find_module(module) is not None else None


def _source(node: fx.Node) -> str:
    """The innermost line of code outside torch."""
    frames = _USER_FRAME.findall(node.meta.get("stack_trace") or "")
    outside = [f"{file}:{line}" for file, line in frames if "/torch/" not in file]
    return outside[-1] if outside else ""
