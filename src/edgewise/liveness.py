"""What remains of a graph under a mask: the one place that decides what is alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .absence import FULL, Flow, State
from .errors import DisconnectedError
from .graph import Graph, Mask, Shape, Vertex
from .ops import TABLE


@dataclass(frozen=True)
class Liveness:
    """What remains of a graph.

    Args:
        states: for each vertex, what remains of its output (None = absent or of no use).
        wants: for each edge, the channels its target reads (None = a dead edge).
        fills: for edges whose target reads channels that the source lacks, what stands for them.
        bypassed: live vertices that pass their input on unchanged.
        forwarded: live sums, products and concatenations of which one input remains alone.
        missing: names of the model outputs that are absent; empty for a valid mask.
    """

    states: tuple[State, ...]
    wants: tuple[State, ...]
    fills: dict[int, float]
    bypassed: frozenset[int]
    forwarded: frozenset[int]
    missing: tuple[str, ...]

    @property
    def connected(self) -> bool:
        """Whether every model output is there."""
        return not self.missing

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for masks that leave the same network."""
        return (self.states, self.wants, self.bypassed)

    def require_connected(self) -> Liveness:
        """This liveness, if every output is there.

        Raises:
            DisconnectedError: names the outputs that the mask cuts off.
        """
        if self.missing:
            raise DisconnectedError(
                f"The mask removes every path to the model output {', '.join(self.missing)}. "
                "Keep at least one: `ew.sample_masks` and `study.plan` give valid masks only."
            )
        return self


def liveness(graph: Graph, mask: Mask) -> Liveness:
    """What remains of the graph under the mask.

    Absence starts at the removed edges and passes forward by each operator's rule; then whatever
    no live output needs is dropped.

    Args:
        graph: the traced graph.
        mask: one bit a unit, 1 = removed.

    Returns:
        The live states; `missing` names absent outputs (no error: see `require_connected`).

    Raises:
        MaskError: the mask belongs to another graph.

    Example:
        >>> ew.liveness(graph, graph.empty).connected  # doctest: +SKIP
        True
    """
    graph.check(mask)
    edges: set[int] = set()
    layers: set[int] = set()
    for unit in mask.removed:
        members = graph.units[unit].members
        (edges if graph.units[unit].kind == "edge" else layers).update(members)
    return alive(graph, edges, layers)


def alive(graph: Graph, removed: set[int], bypassed: set[int]) -> Liveness:
    """As `liveness`, for sets of removed edges and bypassed vertices instead of units."""
    states: list[State] = []
    flows: list[Flow] = []
    missing: list[str] = []
    for index, vertex in enumerate(graph.vertices):
        ins = [None if e in removed else states[graph.edges[e].source] for e in graph.inputs[index]]
        flow = _flow(graph, index, vertex, ins, index in bypassed)
        flows.append(flow)
        states.append(flow.out)
        if vertex.op == "output" and flow.out is None:
            missing += _absent_sources(graph, index, ins)
    return _backward(graph, flows, states, bypassed, tuple(missing))


def _absent_sources(graph: Graph, index: int, ins: Sequence[State]) -> list[str]:
    edges = zip(graph.inputs[index], ins, strict=True)
    return [graph.vertices[graph.edges[e].source].name for e, state in edges if state is None]


def _flow(graph: Graph, index: int, vertex: Vertex, ins: Sequence[State], bypassed: bool) -> Flow:
    if bypassed:
        return Flow(ins[0], tuple(ins))
    if ins and all(state is FULL for state in ins):
        return Flow(FULL, tuple(ins))  # nothing is missing: no rule needs to be asked
    return TABLE.rules[vertex.op].flow(vertex, input_shapes(graph, index), ins)


def input_shapes(graph: Graph, index: int) -> tuple[Shape | None, ...]:
    """The full shapes of a vertex's inputs, by slot."""
    return tuple(graph.vertices[graph.edges[e].source].shape for e in graph.inputs[index])


def _backward(
    graph: Graph, flows: list[Flow], states: list[State], bypassed: set[int],
    missing: tuple[str, ...],
) -> Liveness:  # fmt: skip
    """Keep what an output needs; everything else is dead."""
    needed = [vertex.op == "output" for vertex in graph.vertices]
    wants: list[State] = [None] * len(graph.edges)
    fills: dict[int, float] = {}
    for index in range(len(graph.vertices) - 1, -1, -1):
        if not needed[index] or states[index] is None:
            states[index] = None
            continue
        for edge, want in zip(graph.inputs[index], flows[index].wants, strict=True):
            if want is not None:
                wants[edge] = want
                needed[graph.edges[edge].source] = True
                if flows[index].fill:
                    fills[edge] = flows[index].fill
    live = [i for i, state in enumerate(states) if state is not None]
    return Liveness(
        states=tuple(states),
        wants=tuple(wants),
        fills=fills,
        bypassed=frozenset(i for i in live if i in bypassed),
        forwarded=frozenset(i for i in live if flows[i].forward and i not in bypassed),
        missing=missing,
    )
