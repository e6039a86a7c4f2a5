"""What remains of a graph under a mask: the one place that decides what is alive."""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import compress
from operator import ne

from .flows import flow_of
from .graph import Graph, Mask, Unit, once
from .pieces import apart, reach
from .remaining import Liveness as Liveness
from .remaining import alive as alive
from .remaining import moved, together, under
from .removal import Removal

RECENT = 512  # masks whose liveness a graph remembers: search, engine and rewriting ask for it
BASES = 8  # of the last ones, from the nearest of which others are worked out


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
    """The liveness of bits, from the nearest of the last ones or put together of pieces.

    The time of the first grows with the vertices that change, of the other with the units gone.
    """
    known, number = _bases(graph), int.from_bytes(bytes(bits))
    near = min(known, key=lambda one: (one[0] ^ number).bit_count())
    flips, units = map(ne, bits, near[1]), range(len(bits))
    flipped, gone = [*compress(units, flips)], [*compress(units, bits)]
    if reach(graph, flipped, len(gone)):
        starts = graph.starts(Removal.union(graph.units[unit].removal for unit in flipped))
        found = moved(near[2], under(graph, bits), starts)
    else:
        found = together(apart(graph, gone))
    known[:] = [near, (number, bits, found), *(one for one in known if one is not near)][:BASES]
    return found


@once
def _bases(graph: Graph) -> list[tuple[int, tuple[bool, ...], Liveness]]:
    """The last masks, as numbers and as bits, with what remains under them."""
    return [(0, graph.empty.bits, alive(graph))]


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
