"""Which layers linear recovery fits, and which value of the unpruned network each fits.

A layer behind a removal is fitted so that the value it ends in is that of the unpruned network:
the sum it is a summand of, if there is one, else what its batch norm or it itself gives. Where
the sums behind that lost all other summands, or layers there are bypassed, the value is what
those gave: so the last layer before a removed branch takes over what it can of it.
"""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from ...graph.graph import Graph, once
from ...graph.liveness import Liveness
from ...graph.vertices import Shape
from ...pruning.lower import Lowered
from .batch_norm import PRECISE, is_layer


@dataclass(frozen=True)
class Goal:
    """What a layer is fitted to.

    Args:
        layer: the node of the layer.
        norm: that of the batch norm folded into it, if there is one.
        alias: nodes behind them that pass their value on unchanged.
        end: the node before which the layer can be fitted: the sum, or the last of the above.
        others: the nodes of the other summands.
        vertex: whose value in the unpruned network is the goal.
        axis: of the channels there.
        keep: which channels remain; None: all.
    """

    layer: fx.Node
    norm: fx.Node | None
    alias: tuple[fx.Node, ...]
    end: fx.Node
    others: tuple[fx.Node, ...]
    vertex: int
    axis: int
    keep: tuple[bool, ...] | None

    @property
    def chain(self) -> tuple[fx.Node, ...]:
        """The nodes that the fitted layer stands for."""
        return (self.layer, *([] if self.norm is None else [self.norm]), *self.alias)


def layers_to_fit(graph: Graph) -> list[int]:
    """The vertices that are layers that can be fitted."""
    module: fx.GraphModule = graph.program.module
    return [
        index
        for index, vertex in enumerate(graph.vertices)
        if vertex.module and fits(module.get_submodule(vertex.module)) and vertex.shape is not None
    ]


def fits(layer: Any) -> bool:
    """Whether a module is a layer that can be fitted."""
    if not is_layer(layer) or layer.weight.dtype not in PRECISE:
        return False
    if isinstance(layer, nn.Linear):
        return True
    simple = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return layer.groups == 1 and simple


def _axis(graph: Graph, index: int) -> int:
    shape = graph.vertices[index].shape
    assert shape is not None
    return len(shape) - 1 if graph.vertices[index].op == "linear" else 1


@once
def last_layers(graph: Graph) -> set[int]:
    """The vertices behind which no layer follows that can be fitted: they give the answer."""
    layers, before = set(layers_to_fit(graph)), set[int]()
    for index in reversed(range(len(graph.vertices))):
        targets = [graph.edges[e].target for e in graph.consumers[index]]
        if any(target in layers or target in before for target in targets):
            before.add(index)
    return layers - before


class Goals:
    """The goals under one mask.

    Args:
        graph: the traced graph.
        alive: what remains of it.
        lowered: the program of what remains.
        folds: the batch norms folded into layers, and these.
        touched: the nodes behind a removal.
    """

    def __init__(
        self, graph: Graph, alive: Liveness, lowered: Lowered,
        folds: Mapping[fx.Node, fx.Node], touched: Container[fx.Node],
    ) -> None:  # fmt: skip
        self.graph, self.alive, self.lowered = graph, alive, lowered
        self.touched = touched
        self.nodes = list(lowered.graph.nodes)
        self.norms = {layer: norm for norm, layer in folds.items()}
        by_name = {node.name: node for node in self.nodes}
        self.node_of = {index: by_name[name] for name, index in lowered.vertices.items()}
        self.calls = Counter(node.target for node in self.nodes if node.op == "call_module")
        self.last = last_layers(graph)

    def find(self) -> list[Goal]:
        """All of them, in the order of the program; only the last of a sum's layers fits it."""
        found = [goal for node in self.nodes if (goal := self._goal(node)) is not None]
        last = {goal.end: goal for goal in found}
        own = [goal if last[goal.end] is goal else self._alone(goal) for goal in found]
        return [goal for goal in own if self._behind(goal)]

    def _goal(self, node: fx.Node) -> Goal | None:
        index = self.lowered.vertices.get(node.name)
        if index is None or node.op != "call_module" or self.calls[node.target] > 1:
            return None
        vertex = self.graph.vertices[index]
        if not fits(self.lowered.attributes[str(node.target)]) or vertex.shared:
            return None
        if vertex.shape is None or vertex.batched != (0,):
            return None  # there would be no telling examples apart
        state, axis = self.alive.states[index], _axis(self.graph, index)
        norm = self.norms.get(node)
        if norm is not None and self.calls[norm.target] > 1:
            return None
        if state is None or any(a != axis for a, _ in state.keeps):
            return None
        end = norm or node
        begin = self.lowered.vertices[end.name]
        goal = Goal(node, norm, (), end, (), begin, axis, state.keep(axis))
        return self._followed(goal, begin)

    def _followed(self, goal: Goal, at: int, summed: bool = False) -> Goal:
        """The goal moved on through what only it is read by."""
        shape = self.graph.vertices[at].shape
        alias: list[fx.Node] = []
        while (target := self._reader(at, shape)) is not None:
            op, node = self.graph.vertices[target].op, self.node_of.get(target)
            alone = target in self.alive.forwarded and op == "add" and self._plus(target)
            if alone or target in self.alive.bypassed:
                goal = replace(goal, vertex=target)
            elif op == "identity" and target not in self.alive.forwarded and node is not None:
                alias += [] if summed else [node]
            elif node is not None and not summed:
                others = self._others(target, alias[-1] if alias else goal.norm or goal.layer)
                if not others:
                    break
                goal = replace(goal, alias=tuple(alias), end=node, others=others, vertex=target)
                summed = True
            else:
                break
            at = target
        return goal

    def _reader(self, at: int, shape: Shape | None) -> int | None:
        """The one vertex that reads another, if what it gives has the same shape."""
        node = self.node_of.get(at)
        if node is not None and any(user.name not in self.lowered.vertices for user in node.users):
            return None  # its size is asked for before what it goes into is there
        edges = [e for e in self.graph.consumers[at] if self.alive.wants[e] is not None]
        if len(edges) != 1:
            return None
        target = self.graph.edges[edges[0]].target
        return target if self.graph.vertices[target].shape == shape else None

    def _plus(self, target: int) -> bool:
        signs = self.graph.vertices[target].attrs.get("signs", ())
        return all(sign == 1 for sign in signs)

    def _others(self, target: int, mine: fx.Node) -> tuple[fx.Node, ...]:
        """The other summand of a sum of two of the same shape; nothing if it is none."""
        node, vertex = self.node_of[target], self.graph.vertices[target]
        shapes = self.graph.input_shapes[target]
        alike = len(shapes) == 2 and all(shape == vertex.shape for shape in shapes)
        if vertex.op != "add" or not alike or not self._plus(target) or node.kwargs:
            return ()
        others = tuple(a for a in node.args if isinstance(a, fx.Node) and a is not mine)
        return others if len(others) == 1 and len(node.args) == 2 else ()

    def _alone(self, goal: Goal) -> Goal:
        """The goal of a layer that leaves a sum to another: its own value."""
        end = goal.norm or goal.layer
        vertex = self.lowered.vertices[end.name]
        return replace(goal, alias=(), end=end, others=(), vertex=vertex)

    def _behind(self, goal: Goal) -> bool:
        """Whether there is something to repair.

        The layer that gives the answer is fitted only where it lost inputs: least squares draw
        answers towards their mean, which costs more confidence than it gives accuracy.
        """
        index = self.lowered.vertices[goal.layer.name]
        if index in self.last and not goal.others:
            want = self.alive.wants[self.graph.inputs[index][0]]
            return want is not None and not want.full
        return goal.layer in self.touched or self.lowered.vertices[goal.end.name] != goal.vertex
