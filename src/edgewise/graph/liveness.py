"""What remains of a graph under a mask: the one place that decides what is alive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

from ..errors import DisconnectedError
from .graph import Graph, Mask, Unit, once
from .operators.absence import FULL, Flow, Live, State, intersection, live
from .operators.table import TABLE
from .removal import Removal

_NOTHING = Removal()
FEW = 4  # inputs of a vertex whose flows are remembered
RECENT = 512  # masks whose liveness a graph remembers: search, engine and rewriting ask for it


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
        changed: what those vertices give and take that a removal reaches, the last first; every
            other vertex gives and takes all there is.
    """

    states: tuple[State, ...]
    wants: tuple[State, ...]
    fills: dict[int, float]
    bypassed: frozenset[int]
    forwarded: frozenset[int]
    missing: tuple[str, ...]
    changed: dict[int, Flow]

    @property
    def connected(self) -> bool:
        """Whether every model output is there."""
        return not self.missing

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for masks that leave the same network."""
        return (tuple(self.changed.items()), self.bypassed)

    def runs(self, vertex: int) -> bool:
        """Whether a vertex is live and its operator more than the identity."""
        live = self.states[vertex] is not None
        return live and vertex not in self.bypassed and vertex not in self.forwarded

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

    Examples:
        >>> ew.liveness(graph, graph.empty).connected
        True
        >>> ew.liveness(graph, graph.mask([0, 3])).missing
        ('head.linear',)
    """
    graph.check(mask)
    return _recent(graph)(mask.bits)


@once
def _recent(graph: Graph) -> Callable[[tuple[bool, ...]], Liveness]:
    """The liveness of bits, remembered for the last masks."""
    return lru_cache(RECENT)(partial(_under, graph))


def _under(graph: Graph, bits: tuple[bool, ...]) -> Liveness:
    return alive(graph, graph.removal(bits))


def shows(graph: Graph, alive: Liveness, unit: Unit) -> bool:
    """Whether a removed unit is certain to be missed: with it there would be another network.

    So it is where an edge has lost nothing but itself, a bypassed vertex lives, or a vertex that
    lives would give more of the unit's channels. False says nothing.
    """
    states, ends = alive.states, (graph.edges[edge] for edge in unit.removal.edges)
    return (
        any(
            states[e.source] is not None and states[e.target] is not None
            for e in ends
            if e.target not in alive.bypassed
        )
        or not alive.bypassed.isdisjoint(unit.removal.layers)
        or any(_would_give(graph, alive, *cut) for cut in unit.removal.channels.items())
    )


def _would_give(
    graph: Graph, alive: Liveness, place: tuple[int, int], channels: Iterable[int]
) -> bool:
    """Whether a vertex lives and its operator gives one of the channels that were cut."""
    vertex, axis = place
    if not alive.runs(vertex):
        return False
    ins = [alive.wants[e] and alive.states[graph.edges[e].source] for e in graph.inputs[vertex]]
    out = _flow(graph, vertex, ins, False, _plain(graph)).out
    if out is None:
        return False
    keep = out.keep(axis)
    return keep is None or any(keep[channel] for channel in channels)


def _narrowed(graph: Graph, removal: Removal) -> dict[int, Live]:
    """For every vertex whose output loses channels, those that are left."""
    found: dict[int, Live] = {}
    for vertex, axis in sorted(removal.channels):
        keep = [True] * graph.vertices[vertex].channels(axis)
        for channel in removal.channels[vertex, axis]:
            keep[channel] = False
        found[vertex] = Live((*found.get(vertex, FULL).keeps, (axis, tuple(keep))))
    return found


def alive(graph: Graph, removal: Removal = _NOTHING) -> Liveness:
    """As `liveness`, for a removal instead of units.

    Only the vertices that a removal reaches are looked at: whatever has all its inputs in full
    gives its output in full. So the time taken is that of what changes, not of the network.
    """
    bypassed = removal.layers
    flows = _forward(graph, removal)
    changed, wants = _backward(graph, flows)
    states: list[State] = [FULL] * len(graph.vertices)
    for index, flow in changed.items():
        states[index] = flow.out
    live = {index: flow for index, flow in changed.items() if flow.out is not None}
    filled = [(e, flow.fill) for i, flow in live.items() if flow.fill for e in graph.inputs[i]]
    return Liveness(
        states=tuple(states),
        wants=tuple(wants),
        fills={edge: fill for edge, fill in filled if wants[edge] is not None},
        bypassed=frozenset(live.keys() & bypassed),
        forwarded=frozenset(i for i, flow in live.items() if flow.forward and i not in bypassed),
        missing=_missing(graph, flows, removal),
        changed=changed,
    )


def _forward(graph: Graph, removal: Removal) -> dict[int, Flow]:
    """The flows of the vertices that are bypassed or cut, or lack some of their input."""
    flows: dict[int, Flow] = {}
    states: list[State] = [FULL] * len(graph.vertices)
    removed, bypassed, narrow = removal.edges, removal.layers, _narrowed(graph, removal)
    plain = _plain(graph)
    reached = _marks(graph, graph.starts(removal))
    index = -1
    while (index := reached.find(1, index + 1)) >= 0:
        ins = [None if e in removed else states[graph.edges[e].source] for e in graph.inputs[index]]
        flow = _flow(graph, index, ins, index in bypassed, plain)
        if index in narrow and flow.out is not None:
            flow = _cut(flow, narrow[index], index in bypassed)
        flows[index] = flow
        states[index] = flow.out
        if flow.out is not FULL:
            for edge in graph.consumers[index]:
                reached[graph.edges[edge].target] = 1
    return flows


def _flow(
    graph: Graph, index: int, ins: Sequence[State], bypassed: bool, plain: dict[Any, Flow]
) -> Flow:
    """What a vertex gives and takes; of inputs that are there or not, as `plain` remembers it."""
    if bypassed:
        return Flow(ins[0], tuple(ins))
    key = None
    if len(ins) <= FEW and all([s is None or s is FULL for s in ins]):  # noqa: C419 - it is faster
        key = (index, *[state is None for state in ins])
        if key in plain:
            return plain[key]
    vertex = graph.vertices[index]
    flow = TABLE.rules[vertex.op].passage.flow(vertex, graph.input_shapes[index], ins)
    if key is not None:
        plain[key] = flow
    return flow


@once
def _plain(_: Graph) -> dict[Any, Flow]:
    """The flows of vertices by which of their inputs are absent, the others being in full."""
    return {}


def _cut(flow: Flow, narrow: Live, bypassed: bool) -> Flow:
    """The flow of a vertex that gives only some of its channels, be it computed or bypassed."""
    assert flow.out is not None
    out = live(narrow.keeps) if flow.out is FULL else intersection([flow.out, narrow])
    if out is None:
        return Flow(None, (None,) * len(flow.wants))
    return Flow(out, (out,) if bypassed else flow.wants, flow.fill, flow.forward)


def _backward(graph: Graph, flows: dict[int, Flow]) -> tuple[dict[int, Flow], list[State]]:
    """The flows with those of dead vertices, which no output needs; and what each edge carries."""
    changed: dict[int, Flow] = {}
    wants: list[State] = [FULL] * len(graph.edges)
    reached = _marks(graph, [*flows, *graph.dead_ends])
    index = len(graph.vertices)
    while (index := reached.rfind(1, 0, index)) >= 0:
        flow = flows.get(index)
        if (flow and flow.out is None) or not _needed(graph, index, wants):
            flow = _dead(len(graph.inputs[index]))
        if flow is None:
            continue  # it has lost a reader, but not the last
        changed[index] = flow
        for edge, want in zip(graph.inputs[index], flow.wants, strict=True):
            if want is not FULL:
                wants[edge] = want
                if want is None:
                    reached[graph.edges[edge].source] = 1
    return changed, wants


def _needed(graph: Graph, index: int, wants: Sequence[State]) -> bool:
    """Whether a vertex is an output or something that lives reads it."""
    for edge in graph.consumers[index]:  # a loop, which takes a third of the time of any()
        if wants[edge] is not None:
            return True
    return graph.vertices[index].op == "output"


@cache
def _dead(inputs: int) -> Flow:
    return Flow(None, (None,) * inputs)


def _marks(graph: Graph, vertices: Iterable[int]) -> bytearray:
    """A byte for each vertex, 1 for these: `find` leads to the next one faster than any loop."""
    marks = bytearray(len(graph.vertices))
    for index in vertices:
        marks[index] = 1
    return marks


def _missing(graph: Graph, flows: dict[int, Flow], removal: Removal) -> tuple[str, ...]:
    """The names of the absent vertices that an absent output reads."""
    gone = {index for index, flow in flows.items() if flow.out is None}
    outputs = [index for index in sorted(gone) if graph.vertices[index].op == "output"]
    edges = [(e, graph.edges[e].source) for index in outputs for e in graph.inputs[index]]
    return tuple(graph.vertices[s].name for e, s in edges if e in removal.edges or s in gone)
