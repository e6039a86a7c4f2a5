"""What removals change, in pieces that do not meet: each is worked out once, not in every mask."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .graph import Graph, once
from .remaining import Liveness, alive, whole
from .removal import Removal

RECENT = 1024  # pieces that a graph remembers, beside one for each of its units
SMALL, PART = 256, 64  # vertices that a remembered piece of several units changes, or a part of all
OFTEN = 4  # times the vertices of the graph that pieces may change, or nothing is gained by them
Group = frozenset[int]


@dataclass(frozen=True, eq=False)
class Piece:
    """What the removal of some units changes of a network.

    Args:
        alive: what remains without them.
        unread: how many readers vertices lost that are still there.
        vertices: those that changed, as bits of a number; without those that nothing ever reads.
        loses: those of `unread`, likewise.
    """

    alive: Liveness
    unread: dict[int, int]
    vertices: int
    loses: int


def _worked_out(graph: Graph, units: Group) -> Piece:
    rest, never = alive(graph, Removal.union(graph.units[u].removal for u in units)), unused(graph)
    flows = {index: flow for index, flow in rest.flows.items() if index not in never}
    lost = Counter(
        graph.edges[edge].source
        for index, flow in flows.items()
        for edge, want in zip(graph.inputs[index], flow.wants, strict=True)
        if want is None
    )
    unread = {i: n for i, n in lost.items() if i not in rest.flows or rest.flows[i].out is not None}
    return Piece(rest, unread, sum(1 << i for i in flows), sum(1 << i for i in unread))


def reach(graph: Graph, units: Iterable[int], most: int) -> bool:
    """Whether units, each by itself, change so many vertices at most."""
    for unit in units:
        most -= _piece(graph, frozenset((unit,))).vertices.bit_count()
        if most < 0:
            return False
    return True


def apart(graph: Graph, units: Iterable[int]) -> list[Liveness]:
    """Pieces, none of which another one touches, of what the removal of all these units changes.

    A vertex looks at its inputs and at whether anyone reads it. So pieces are what they would be
    alone as long as they have no vertex in common, and do not together take all readers from one.
    """
    together = defaultdict[int, list[int]](list)
    for unit in units:  # widths of one group meet in any case
        together[graph.group_of.get(unit, (unit,))[0]].append(unit)
    groups = [frozenset(some) for some in together.values()] or [frozenset()]
    count = sum(map(len, groups))
    while 2 * max(map(len, groups)) <= max(count, 2):  # else the rest meets the largest, mostly
        pieces, room = list[Piece](), OFTEN * len(graph.vertices)
        for group in groups:
            pieces.append(_piece(graph, group))
            room -= pieces[-1].vertices.bit_count()
            if room < 0:
                break
        if room < 0:
            break
        joined = _joined(graph, groups, pieces)
        if len(joined) == len(groups):
            return [piece.alive for piece in pieces]
        groups = joined
    return [_piece(graph, frozenset[int]().union(*groups)).alive]


def _piece(graph: Graph, units: Group) -> Piece:
    """What the removal of some units changes; those of one unit and small ones are remembered."""
    known = _known(graph)
    if units in known:
        return known[units]
    found = _worked_out(graph, units)
    if len(units) < 2 or found.vertices.bit_count() <= max(SMALL, len(graph.vertices) // PART):
        if len(known) >= RECENT + len(graph.units):
            known.clear()
        known[units] = found
    return found


@once
def _known(_: Graph) -> dict[Group, Piece]:
    return {}


@once
def unused(graph: Graph) -> frozenset[int]:
    """The vertices that no output needs, whatever is removed."""
    return frozenset(whole(graph).flows)


@once
def _readers(graph: Graph) -> list[int]:
    """How many edges read each vertex, those of unused ones aside."""
    never = unused(graph)
    return [sum(graph.edges[e].target not in never for e in edges) for edges in graph.consumers]


def _joined(graph: Graph, groups: Sequence[Group], pieces: Sequence[Piece]) -> list[Group]:
    """The groups, those in one whose pieces meet."""
    taken = shared = read = often = 0
    for piece in pieces:
        shared |= taken & piece.vertices
        taken |= piece.vertices
        often |= read & piece.loses
        read |= piece.loses
    lost = _lost(graph, pieces, often) if often else 0
    if not shared and not lost:
        return list(groups)
    alone, meeting = list[Group](), list[tuple[int, Group]]()  # what meets, with where it does
    for group, piece in zip(groups, pieces, strict=True):
        places = piece.vertices & (shared | lost) | piece.loses & lost
        if not places:
            alone.append(group)
            continue
        met = [one for one in meeting if one[0] & places]
        for bits, others in met:
            places, group = places | bits, group | others
        meeting = [one for one in meeting if one not in met] + [(places, group)]
    return alone + [group for _, group in meeting]


def _lost(graph: Graph, pieces: Sequence[Piece], often: int) -> int:
    """The vertices of which pieces together take all readers, of those that several take some."""
    counts, readers = Counter[int](), _readers(graph)
    for piece in pieces:
        if piece.loses & often:
            counts.update({v: n for v, n in piece.unread.items() if often >> v & 1})
    return sum(1 << v for v, count in counts.items() if count == readers[v])
