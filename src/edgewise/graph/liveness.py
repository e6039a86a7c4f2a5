"""What remains of a graph under a mask: the one place that decides what is alive."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

from ..errors import DisconnectedError
from .flows import flow_of
from .graph import Graph, Mask, Unit, once
from .operators.absence import FULL, Flow, State
from .pieces import Piece, apart, changes
from .removal import Removal

_NOTHING = Removal()
RECENT = 512  # masks whose liveness a graph remembers: search, engine and rewriting ask for it


@dataclass(frozen=True, eq=False)
class Liveness:
    """What remains of a graph.

    Args:
        graph: the whole.
        pieces: what removals change of it; no two have a vertex in common.
    """

    graph: Graph
    pieces: tuple[Piece, ...]

    def __eq__(self, other: object) -> bool:
        """Whether the same remains, of whatever pieces it is put together."""
        return isinstance(other, Liveness) and self._whole == other._whole

    @property
    def _whole(self) -> tuple[object, ...]:
        ends = self.bypassed, self.forwarded, self.missing
        return (self.states, self.wants, self.fills, *ends, self.changed)

    @cached_property
    def states(self) -> tuple[State, ...]:
        """For each vertex, what remains of its output (None = absent or of no use)."""
        found: list[State] = [FULL] * len(self.graph.vertices)
        for piece in self.pieces:
            for index, flow in piece.changed.items():
                found[index] = flow.out
        return tuple(found)

    @cached_property
    def wants(self) -> tuple[State, ...]:
        """For each edge, the channels its target reads (None = a dead edge)."""
        found: list[State] = [FULL] * len(self.graph.edges)
        for piece in self.pieces:
            for edge, want in piece.wants:
                found[edge] = want
        return tuple(found)

    @cached_property
    def fills(self) -> dict[int, float]:
        """For edges whose target reads channels that the source lacks, what stands for them."""
        return {edge: fill for piece in self.pieces for edge, fill in piece.fills}

    @cached_property
    def bypassed(self) -> frozenset[int]:
        """Live vertices that pass their input on unchanged."""
        return frozenset[int]().union(*(piece.bypassed for piece in self.pieces))

    @cached_property
    def forwarded(self) -> frozenset[int]:
        """Live sums, products and concatenations of which one input remains alone."""
        return frozenset[int]().union(*(piece.forwarded for piece in self.pieces))

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Names of the model outputs that are absent; empty for a valid mask."""
        return tuple(name for _, name in sorted(m for p in self.pieces for m in p.missing))

    @cached_property
    def changed(self) -> dict[int, Flow]:
        """What those vertices give and take that a removal reaches, the last first.

        Every other vertex gives and takes all there is.
        """
        found = {index: flow for piece in self.pieces for index, flow in piece.changed.items()}
        return dict(sorted(found.items(), reverse=True))

    @property
    def connected(self) -> bool:
        """Whether every model output is there."""
        return not self.missing

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for masks that leave the same network."""
        return (tuple(self.changed.items()), self.bypassed)

    @property
    def mark(self) -> int:
        """Equal for masks that leave the same network, and hardly ever for others."""
        return sum(piece.mark for piece in self.pieces)

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
    return Liveness(graph, tuple(apart(graph, [i for i, gone in enumerate(bits) if gone])))


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
    out = flow_of(graph, vertex, ins).out
    if out is None:
        return False
    keep = out.keep(axis)
    return keep is None or any(keep[channel] for channel in channels)


def alive(graph: Graph, removal: Removal = _NOTHING) -> Liveness:
    """As `liveness`, for a removal instead of units; worked out at once."""
    return Liveness(graph, (changes(graph, removal),))
