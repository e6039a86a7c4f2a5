"""Sizes that a program computes with, where what had them is gone or smaller.

They are asked of what is there: of the tensor itself, of an input, or of another tensor of which an
axis is always as long. Only what is the same for all inputs becomes a number in the program.
"""

import operator
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..graph.graph import Graph, once
from ..graph.liveness import Liveness
from ..tracing.axes import Axes, Sizes, axes
from ..tracing.program import picked
from ..tracing.signature import Traced
from ..tracing.sizes import frozen_axes

PLACES = "what was removed are places along an axis that grows with it"
REASON = "the pruned network has numbers in it that hold for this size only"


def held(graph: Graph, alive: Liveness) -> Traced | None:
    """What refuses other sizes where a removal took places of an axis that they make longer.

    Of a concatenation along the length, say: which of its places are gone is known at the traced
    length only.
    """
    moving, program = graph.program.moving, graph.program
    axes = [
        axis
        for vertex, state in zip(graph.vertices, alive.states, strict=True)
        if state is not None and state.keeps
        for axis in moving.get(vertex.node, frozenset()).intersection(dict(state.keeps))
    ]
    frozen = {axis for varied in program.sizes for axis in frozen_axes(program.args, varied)}
    found: Traced = program.traced
    return found.also(frozen, PLACES) if axes and frozen else None


class Numbers:
    """Writes sizes of the whole network into the program of what remains of it.

    Args:
        full: the graph of the network.
        alive: what remains.
        plan: the vertex of each node that has one.
        env: what nodes became, as far as they are written.
        out: the program.
    """

    def __init__(
        self, full: Graph, alive: Liveness, plan: Mapping[str, int], env: Mapping[fx.Node, Any],
        out: fx.Graph,
    ) -> None:  # fmt: skip
        self.full, self.alive, self.plan, self.env, self.out = full, alive, plan, env, out
        self.written: dict[Sizes, Any] = {}
        self.guessed: list[Sizes] = []  # of which the example's stand for what inputs decide

    @property
    def axes(self) -> Axes:
        """Which sizes of the whole network go together."""
        return _axes(self.full)

    @property
    def guard(self) -> Traced | None:
        """What refuses other sizes than the example's, where one of them was written out."""
        if not self.guessed:
            return held(self.full, self.alive)
        leaves = pytree.tree_leaves(self.full.program.args)
        batch = any(sizes[0] != sizes[1] for sizes in self.guessed)
        free = [
            axis
            for axis, sizes in self.axes.inputs.items()
            if len(set(sizes)) > 1 and (batch or sizes[0] == sizes[1])
        ]
        sizes = [(place, axis, int(leaves[place].shape[axis])) for place, axis in free]
        traced: Traced = self.full.program.traced
        return traced.also(sizes, REASON)

    def varies(self, index: int, axis: int) -> bool:
        """Whether inputs decide how long an axis of a vertex is."""
        return len(set(self._sizes(index, axis))) > 1

    def size(self, index: int, axis: int) -> Any:
        """How long an axis of a vertex is in the whole network."""
        vertex = self.full.vertices[index]
        assert vertex.shape is not None
        batch = self.full.program.batch if axis in vertex.batched else 1
        return self._write(self._sizes(index, axis), vertex.shape[axis] * batch)

    def _sizes(self, index: int, axis: int) -> Sizes:
        found = self.axes.values.get(self.full.vertices[index].node, ())
        return found[axis] if axis < len(found) else ()

    def asked(self, node: fx.Node) -> Any:
        """What a node gives that asks a tensor of the whole network for what is no tensor."""
        source, axis = _question(node)
        index, value = self.plan[source.name], self.full.program.values.get(node.name)
        if isinstance(value, torch.device):
            home = self.env[source] if self._there(index, source) else self._input(0)
            return self.out.call_function(getattr, (home, "device"))
        if axis is not None:
            return self._of(source, axis)
        shape = self.full.vertices[index].shape
        if isinstance(value, tuple) and shape is not None and len(value) == len(shape):
            return tuple(self._of(source, place) for place in range(len(value)))
        if node.target in ("numel", "nelement") and shape is not None:
            lines = [self._of(source, place) for place in range(len(shape))]
            return reduce(lambda a, b: self.out.call_function(operator.mul, (a, b)), lines)
        sizes = self.axes.values.get(node.name, ())
        return self._write(sizes[0], value) if len(sizes) == 1 else value

    def _there(self, index: int, source: fx.Node) -> bool:
        return self.alive.states[index] is not None and isinstance(self.env.get(source), fx.Node)

    def _of(self, source: fx.Node, axis: int) -> Any:
        """How long an axis was, asked of the tensor itself where all of the axis is left."""
        index = self.plan[source.name]
        state, shape = self.alive.states[index], self.full.vertices[index].shape
        assert shape is not None
        axis %= len(shape)
        if self._there(index, source) and state is not None:
            if state.keep(axis) is None:
                return self.out.call_method("size", (self.env[source], axis))
            return shape[axis]
        return self.size(index, axis)

    def _write(self, sizes: Sizes, known: Any) -> Any:
        """Sizes as a number where they are one, or as what gives them for any inputs."""
        if len(set(sizes)) < 2:
            return known
        if sizes not in self.written:
            self.written[sizes] = self._alike(sizes, known)
        return self.written[sizes]

    def _alike(self, sizes: Sizes, known: Any) -> Any:
        itself = next((a for a, of in self.axes.inputs.items() if of == sizes), None)
        if itself is not None:
            return self._size_of_input(itself)
        for node in self.env:
            index = self.plan.get(node.name)
            state = None if index is None else self.alive.states[index]
            if index is None or state is None or not self._there(index, node):
                continue
            for axis in range(len(self.full.vertices[index].shape or ())):
                if state.keep(axis) is None and self._sizes(index, axis) == sizes:
                    return self.out.call_method("size", (self.env[node], axis))
        found = self.axes.multiple(sizes)
        if found is None:
            self.guessed.append(sizes)
            return known
        place, times, more, over = found
        size = self._size_of_input(place)
        for function, number, idle in (
            (operator.mul, times, 1),
            (operator.add, more, 0),
            (operator.floordiv, over, 1),
        ):
            if number != idle:
                size = self.out.call_function(function, (size, number))
        return size

    def _size_of_input(self, place: tuple[int, int]) -> fx.Node:
        return self.out.call_method("size", (self._input(place[0]), place[1]))

    def _input(self, place: int) -> fx.Node:
        """A tensor by its place among all that the inputs hold."""
        keys: Any = pytree.tree_flatten_with_path(self.full.program.args)[0][place][0]
        return picked(self.out, self.out.find_nodes(op="placeholder")[keys[0].idx], keys[1:])


@once
def _axes(graph: Graph) -> Axes:
    return axes(graph.program)


def _question(node: fx.Node) -> tuple[fx.Node, int | None]:
    """The tensor that a node asks, and the axis, where it asks for the size of one."""
    if one_size(node):
        shape: Any = node.args[0]
        return shape.all_input_nodes[0], node.args[1]  # type: ignore[return-value]
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    whole = node.target is len
    of_one = node.target == "size" and isinstance(axis, int)
    return node.all_input_nodes[0], 0 if whole else axis if of_one else None  # type: ignore[return-value]


def one_size(node: fx.Node) -> bool:
    """Whether a node picks one size of the shape that it asked a tensor for."""
    if node.target is not operator.getitem or not isinstance(node.args[1], int):
        return False
    shape: Any = node.args[0]
    if not isinstance(shape, fx.Node):
        return False
    method = shape.target == "size" and len(shape.args) == 1 and not shape.kwargs
    return method or (shape.target is getattr and str(shape.args[1]) == "shape")
