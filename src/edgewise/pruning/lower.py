"""From what is alive to a torch.fx program that runs only that."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..graph.cost import followed, inner_outer, live_slices
from ..graph.graph import Graph
from ..graph.liveness import Liveness
from ..graph.operators.absence import Live, State
from ..graph.operators.lowering import Site
from ..graph.operators.runtime import assemble, precision, segments
from ..graph.operators.table import TABLE
from ..graph.vertices import Follow, Vertex
from ..tracing.builder import data_inputs
from ..tracing.program import attribute
from ..tracing.signature import Traced
from .cut import cut_module, cut_tensor
from .numbers import Numbers, one_size


@dataclass
class Lowered:
    """A program and the modules, parameters and buffers it refers to, by path.

    `vertices` names the graph vertex that a node of the program came from; `guard` refuses sizes,
    where one of the example had to stand for what inputs decide.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    attributes: dict[str, Any] = field(default_factory=dict)
    vertices: dict[str, int] = field(default_factory=dict)
    guard: Traced | None = None


def lower(graph: Graph, alive: Liveness, cut: dict[Any, Any] | None = None) -> Lowered:
    """The program of what is alive.

    Modules that lose nothing are the traced ones themselves, not copies; modules that lose
    channels are new, and kept in `cut` for the next call.
    """
    return _Lowering(graph, alive, {} if cut is None else cut).run()


class _Lowering:
    def __init__(self, graph: Graph, alive: Liveness, cut: dict[Any, Any]) -> None:
        self.full, self.alive, self.cut = graph, alive, cut
        self.module: fx.GraphModule = graph.program.module
        self.plan = {vertex.node: i for i, vertex in enumerate(graph.vertices)}
        self.env: dict[fx.Node, Any] = {}
        self.out = Lowered()
        self.numbers = Numbers(graph, alive, self.plan, self.env, self.out.graph)

    def run(self) -> Lowered:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self._copy(node)
            elif node.name in self.plan:
                index = self.plan[node.name]
                if self.alive.states[index] is not None:
                    before = len(self.out.graph.nodes)
                    self.env[node] = self._vertex(node, index, self.full.vertices[index])
                    if len(self.out.graph.nodes) > before and isinstance(self.env[node], fx.Node):
                        self.out.vertices[self.env[node].name] = index
        self.out.guard = self.numbers.guard
        self.out.graph.lint()
        return self.out

    # -- data vertices ---------------------------------------------------------------------

    def _vertex(self, node: fx.Node, index: int, vertex: Vertex) -> Any:
        sources = data_inputs(node, self.plan)
        edges = self.full.inputs[index]
        used = [(s, e) for s, e in zip(sources, edges, strict=True) if self.alive.wants[e]]
        if index in self.alive.bypassed:
            return self._read(*used[0])
        if index in self.alive.forwarded:
            return self._expanded(self._read(*used[0]), used[0][1], index)
        special = TABLE.rules[vertex.op].lower
        result = special(self._site(node, index, used)) if special is not None else None
        return self._copy(node, index) if result is None else result

    def _site(self, node: fx.Node, index: int, used: Sequence[tuple[fx.Node, int]]) -> Site:
        state = self.alive.states[index]
        assert state is not None
        return Site(
            node=node,
            vertex=self.full.vertices[index],
            shapes=self.full.input_shapes[index],
            out=state,
            slots=[self.full.edges[edge].slot for _, edge in used],
            haves=[self._have(edge) for _, edge in used],
            wants=[self.alive.wants[edge] for _, edge in used],
            values=[self.env[source] for source, _ in used],
            read=lambda place=0: self._read(*used[place]),
            copy=lambda: self._copy(node, index),
            call=self._call,
            expanded=lambda value, given=None: self._expanded(value, used[0][1], index, given),
            sizes=lambda *known: self._sizes(index, *known),
        )

    def _have(self, edge: int) -> State:
        return self.alive.states[self.full.edges[edge].source]

    def _read(self, source: fx.Node, edge: int) -> Any:
        """The input that an edge brings, with the channels that the consumer reads."""
        have, want = self._have(edge), self.alive.wants[edge]
        value = self.env[source]
        if have == want or have is None or want is None:
            return value
        shape = self.full.vertices[self.full.edges[edge].source].shape
        assert shape is not None
        for axis, size in enumerate(shape):
            here, wanted = have.keep(axis), want.keep(axis)
            if here != wanted:
                runs = segments(here or (True,) * size, wanted or (True,) * size)
                value = self._call(assemble, value, axis, runs, self.alive.fills.get(edge, 0.0))
        return value

    def _call(self, function: Any, *args: Any) -> fx.Node:
        return self.out.graph.call_function(function, args)

    def _expanded(self, value: Any, edge: int, index: int, given: Any = None) -> Any:
        """The last summand or factor, in the shape and dtype of the sum or product."""
        source, target = self.full.vertices[self.full.edges[edge].source], self.full.vertices[index]
        if source.dtype != target.dtype:
            value = self.out.graph.call_method("to", (value, self._precision(target.dtype)))
        before, after = source.shape, target.shape
        grown = source.batched == target.batched
        if (before == after and grown and given is None) or before is None or after is None:
            return value
        shift = len(after) - len(before)

        def same(axis: int) -> bool:
            if axis in target.batched:  # one example has size 1 there, as what only broadcasts does
                return axis - shift in source.batched
            return axis >= shift and before[axis - shift] == after[axis]

        known = [-1 if same(axis) else None for axis in range(len(after))]
        sizes = self._sizes(index, given or (), known)
        return self.out.graph.call_method("expand", (value, *sizes))

    def _sizes(self, index: int, given: Any, known: Sequence[int | None] = ()) -> list[Any]:
        """What remains of the shape that a vertex gives.

        Args:
            index: the vertex.
            given: the sizes that its call has, if it has any: one for each axis, or a node.
            known: sizes that are otherwise known, by axis.
        """
        state, shape = self.alive.states[index], self.full.vertices[index].shape
        assert state is not None
        assert shape is not None
        sizes: list[Any] = list(known) or [None] * len(shape)
        for axis, left in enumerate(state.shape(shape)):
            if sizes[axis] is not None:
                continue
            if state.keep(axis) is not None:
                sizes[axis] = left
            elif isinstance(given, fx.Node):
                sizes[axis] = self._call(operator.getitem, self._resolve(given), axis)
            elif given:
                old = given[axis]
                sizes[axis] = self._resolve(old) if isinstance(old, fx.Node) else old
        free = [axis for axis, size in enumerate(sizes) if size is None]
        last = next((a for a in reversed(free) if self.numbers.varies(index, a)), None)
        for axis in free:
            rest = axis == last and -1 not in sizes and not known
            sizes[axis] = -1 if rest else self.numbers.size(index, axis)
        return sizes

    def _copy(self, node: fx.Node, index: int | None = None) -> fx.Node:
        """The node itself, reading what remains of its inputs and parameters."""
        edges = iter(self.full.inputs[index]) if index is not None else iter(())
        dropped = object()

        def argument(a: fx.Node) -> Any:
            if a.name not in self.plan:
                return self._constant(a)
            edge = next(edges)
            return self._read(a, edge) if self.alive.wants[edge] is not None else dropped

        args = _without(fx.map_arg(node.args, argument), dropped)
        kwargs = _without(fx.map_arg(node.kwargs, argument), dropped)
        new = self.out.graph.create_node(node.op, node.target, args, kwargs, node.name, node.type)
        new.meta = dict(node.meta)
        self.env[node] = new
        if node.op in ("call_module", "get_attr"):
            self._attach(node, index)
        if index is not None:
            self._cut_constants(node, new, index)
        return new

    # -- modules and parameters ------------------------------------------------------------

    def _attach(self, node: fx.Node, index: int | None) -> None:
        path = str(node.target)
        if node.op == "get_attr":
            self.out.attributes[path] = attribute(self.module, path)
        elif index is None:
            self.out.attributes[path] = self.module.get_submodule(path)
        else:
            self.out.attributes[path] = self._module(path, index)

    def _module(self, path: str, index: int) -> nn.Module:
        vertex = self.full.vertices[index]
        inner, outer = inner_outer(self.full, self.alive, index)
        slices = tuple(live_slices(p, inner, outer) for p in vertex.params)
        whole = self.module.get_submodule(path)
        count = TABLE.rules[vertex.op].sizes
        sizes = count(vertex, outer) if count is not None else ()
        if all(keep is None for parameter in slices for keep in parameter) and not sizes:
            return whole
        key = (path, slices, sizes)
        if key not in self.cut:
            self.cut[key] = cut_module(whole, vertex, slices, sizes)
        module: nn.Module = self.cut[key]
        return module

    def _cut_constants(self, node: fx.Node, new: fx.Node, index: int) -> None:
        """Constant arguments follow the channels that remain of inputs and outputs."""
        vertex = self.full.vertices[index]
        constants = vertex.attrs.get("constants")
        inner, outer = inner_outer(self.full, self.alive, index)
        changed = not outer.full or (inner is not None and not inner.full)
        if not constants or not changed:
            return
        names = TABLE.rules[vertex.op].signature.split()
        position = {name: i for i, name in enumerate(names)}
        for name, follows in constants.items():
            at = int(name[1:]) if name.startswith("*") else position.get(name, len(names))
            positional = at < len(node.args)
            held: Any = new.args[at] if positional else new.kwargs.get(name)
            olds = pytree.tree_leaves(node.args[at] if positional else node.kwargs.get(name))
            news: dict[Any, Any] = {n: n for n in new.all_input_nodes} | {
                self.env[old]: self._cut_constant(old, new, vertex, follows, inner, outer)
                for old in olds
                if isinstance(old, fx.Node) and old.name not in self.plan
            }
            value = fx.map_arg(held, news.__getitem__)
            new.update_arg(at, value) if positional else new.update_kwarg(name, value)

    def _cut_constant(
        self, old: fx.Node, new: fx.Node, vertex: Vertex, follows: Sequence[Follow],
        inner: State, outer: Live,
    ) -> Any:  # fmt: skip
        value = self.env[old]
        slices = followed(follows, inner, outer)
        known = {p.name: p for p in vertex.params if any(p.follows)}
        if old.op == "get_attr" and str(old.target) in known:
            tensor = cut_tensor(attribute(self.module, str(old.target)), slices)
            self.out.attributes[str(old.target)] = tensor
            return value
        with self.out.graph.inserting_before(new):
            for axis, keep in enumerate(slices):
                if keep is not None:
                    value = self._call(assemble, value, axis, segments((True,) * len(keep), keep))
        return value

    # -- numbers and constants -------------------------------------------------------------

    def _constant(self, node: fx.Node) -> Any:
        """A node that is no data: copied, or what it was where its source is not there in full."""
        if node in self.env:
            return self.env[node]
        sources = node.all_input_nodes
        if one_size(node):
            sources = sources[0].all_input_nodes
        if any(n.name in self.plan and not self._there(n, node) for n in sources):
            self.env[node] = self._asked(node)
            return self.env[node]
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._resolve)
        new = self.out.graph.create_node(node.op, node.target, args, kwargs, node.name, node.type)
        self.env[node] = new
        if node.op in ("call_module", "get_attr"):
            self._attach(node, None)
        return new

    def _resolve(self, node: fx.Node) -> Any:
        return self.env[node] if node.name in self.plan else self._constant(node)

    def _there(self, node: fx.Node, reader: fx.Node) -> bool:
        state = self.alive.states[self.plan[node.name]]
        return state is not None and (state.full or _asks_dtype(reader)) and node in self.env

    def _asked(self, node: fx.Node) -> Any:
        """What a node gives that asks a tensor which is not there in full for what is no tensor."""
        value = self.full.program.values.get(node.name)
        if isinstance(value, torch.dtype):
            return self._precision(str(value).removeprefix("torch."))
        if node.target is precision:
            source = self.full.vertices[self.plan[node.all_input_nodes[0].name]]
            return self._precision(source.dtype, *node.args[1:])
        return self.numbers.asked(node)

    def _precision(self, name: str, *limit: Any) -> Any:
        """A dtype, or a limit of one, as the first value has it that had this dtype when traced."""
        first = {v.node for v in self.full.vertices if v.dtype == name}
        for old, new in self.env.items():
            if old.name in first and isinstance(new, fx.Node):
                return self._call(precision, new, *limit)
        dtype = getattr(torch, name)
        return getattr(torch.finfo(dtype), limit[0]) if limit else dtype


def _asks_dtype(node: fx.Node) -> bool:
    """Whether a node reads nothing of a tensor but what cutting its channels leaves as it is."""
    return node.target is precision or (
        node.target is getattr and node.args[1] in ("dtype", "device")
    )


def _without(value: Any, dropped: object) -> Any:
    """Lists of tensors without those that are absent."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        kept = [_without(v, dropped) for v in value if v is not dropped]
        return kept if isinstance(value, list) else tuple(kept)
    if isinstance(value, dict):
        return {k: _without(v, dropped) for k, v in value.items() if v is not dropped}
    return value
