"""What remains of a graph under removals, worked out from what remains under others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from weakref import ref

from ..errors import DisconnectedError
from .flows import Cuts, Flows, backward, cuts_of, forward
from .graph import Graph, once
from .operators.absence import FULL, Flow, State
from .removal import Removal

_NOTHING = Removal()
Here = Callable[[int], Removal]


@dataclass(frozen=True, eq=False)
class Liveness:
    """What remains of a graph.

    Args:
        graph: the whole.
        given: flows of the vertices that lack something of their inputs, or of their channels.
        flows: the same with those of dead vertices, which no output needs.
        layers: the vertices that are bypassed, dead ones too.
        lost: edges that bring nothing to a model output.
        mark: equal for masks that leave the same network, and hardly ever for others.
        near: the liveness that this one was worked out from, while it is in use.
        before: the flows there of the vertices of which they are others here; None = full.
        parts: or else those that it was put together from, which meet nowhere.
    """

    graph: Graph
    given: Flows = field(default_factory=dict)
    flows: Flows = field(default_factory=dict)
    layers: frozenset[int] = frozenset()
    lost: tuple[int, ...] = ()
    mark: int = 0
    near: Callable[[], Liveness | None] = lambda: None
    before: Mapping[int, Flow | None] = field(default_factory=dict)
    parts: tuple[Liveness, ...] = ()

    @cached_property
    def states(self) -> tuple[State, ...]:
        """For each vertex, what remains of its output (None = absent or of no use)."""
        found: list[State] = [FULL] * len(self.graph.vertices)
        for index, flow in self.flows.items():
            found[index] = flow.out
        return tuple(found)

    @cached_property
    def wants(self) -> tuple[State, ...]:
        """For each edge, the channels its target reads (None = a dead edge)."""
        found: list[State] = [FULL] * len(self.graph.edges)
        for index, flow in self.flows.items():
            for edge, want in zip(self.graph.inputs[index], flow.wants, strict=True):
                found[edge] = want
        return tuple(found)

    @cached_property
    def fills(self) -> dict[int, float]:
        """For edges whose target reads channels that the source lacks, what stands for them."""
        filled = ((index, flow) for index, flow in self.flows.items() if flow.fill)
        return {
            edge: flow.fill
            for index, flow in filled
            for edge, want in zip(self.graph.inputs[index], flow.wants, strict=True)
            if want is not None
        }

    @cached_property
    def bypassed(self) -> frozenset[int]:
        """Live vertices that pass their input on unchanged."""
        return frozenset(v for v in self.layers if self.flows[v].out is not None)

    @cached_property
    def forwarded(self) -> frozenset[int]:
        """Live sums, products and concatenations of which one input remains alone."""
        live = (v for v, flow in self.flows.items() if flow.forward and flow.out is not None)
        return frozenset(live) - self.layers

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Names of the model outputs that are absent; empty for a valid mask."""
        vertices, edges = self.graph.vertices, self.graph.edges
        return tuple(vertices[edges[edge].source].name for edge in self.lost)

    @cached_property
    def changed(self) -> dict[int, Flow]:
        """What those vertices give and take that a removal reaches, the last first.

        Every other vertex gives and takes all there is.
        """
        return dict(sorted(self.flows.items(), reverse=True))

    @property
    def connected(self) -> bool:
        """Whether every model output is there."""
        return not self.lost

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for masks that leave the same network."""
        return (tuple(self.changed.items()), self.bypassed)

    def runs(self, vertex: int) -> bool:
        """Whether a vertex is live and its operator more than the identity."""
        flow = self.flows.get(vertex)
        if flow is None:
            return True
        return flow.out is not None and not flow.forward and vertex not in self.layers

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


@once
def unit_cuts(graph: Graph) -> Cuts:
    """What units, by index, take at each vertex."""
    return cuts_of(graph, (unit.removal for unit in graph.units))


def together(parts: Sequence[Liveness]) -> Liveness:
    """The liveness under all that these are without, where they change no vertex in common."""
    base, given, flows = whole(parts[0].graph), Flows(), Flows()
    for part in parts:
        given.update(part.given)
        flows.update(part.flows)
    layers = frozenset[int]().union(*(part.layers for part in parts))
    lost = tuple(sorted(edge for part in parts for edge in part.lost))
    mark = base.mark + sum(part.mark - base.mark for part in parts)
    return Liveness(base.graph, given, flows, layers, lost, mark, parts=tuple(parts))


def moved(near: Liveness, here: Here, starts: Collection[int]) -> Liveness:
    """The liveness under other removals than those of one that is known.

    Only the vertices are looked at that a difference reaches.

    Args:
        near: the known one.
        here: what is removed at a vertex.
        starts: the vertices where that is something else.
    """
    graph, given, flows, layers = near.graph, near.given.copy(), near.flows.copy(), {*near.layers}
    others = forward(graph, here, starts, given, layers)
    before, mark = backward(graph, given, (*starts, *others), flows), near.mark
    for index, flow in before.items():
        mark += _mark(index, flows.get(index), layers) - _mark(index, flow, near.layers)
    gone = [v for v in _outputs(graph) if v in given and given[v].out is None]
    into = [(v, e, given.get(graph.edges[e].source)) for v in gone for e in graph.inputs[v]]
    lost = tuple(e for v, e, flow in into if e in here(v).edges or (flow and flow.out is None))
    return Liveness(graph, given, flows, frozenset(layers), lost, mark, ref(near), before)


def _mark(index: int, flow: Flow | None, layers: Set[int]) -> int:
    if flow is None:
        return 0
    return hash((index, flow, index in layers) if flow.out is not None else (index, None))


@once
def _outputs(graph: Graph) -> list[int]:
    return [index for index, vertex in enumerate(graph.vertices) if vertex.op == "output"]


def under(graph: Graph, bits: Sequence[bool]) -> Here:
    """What a mask removes at a vertex."""
    cuts = unit_cuts(graph)

    def here(index: int) -> Removal:
        if index not in cuts:
            return _NOTHING
        gone = [removal for unit, removal in cuts[index] if bits[unit]]
        return gone[0] if len(gone) == 1 else Removal.union(gone)

    return here


def alive(graph: Graph, removal: Removal = _NOTHING) -> Liveness:
    """As `liveness`, for a removal instead of units."""
    channels = defaultdict[int, dict[tuple[int, int], frozenset[int]]](dict)
    for place, cut in removal.channels.items():
        channels[place[0]][place] = cut

    def here(index: int) -> Removal:
        return Removal(removal.edges, removal.layers, channels.get(index, {}))

    return moved(whole(graph), here, graph.starts(removal))


@once
def whole(graph: Graph) -> Liveness:
    """What remains where nothing is removed."""
    return moved(Liveness(graph), lambda _: _NOTHING, graph.dead_ends)
