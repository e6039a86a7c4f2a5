"""What removals change, in pieces that do not meet: each is worked out once, not in every mask."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from .flows import backward, forward
from .graph import Graph, once
from .operators.absence import FULL, Flow, State
from .removal import Removal

RECENT = 1024  # pieces that a graph remembers, beside one for each of its units
SMALL, PART = 256, 64  # vertices that a remembered piece of several units changes, or a part of all
OFTEN = 4  # times the vertices of the graph that pieces may change, or nothing is gained by them
Group = frozenset[int]


@dataclass(frozen=True, eq=False)
class Piece:
    """What a removal changes of a network.

    Args:
        changed: what those vertices give and take that it reaches.
        wants: of the edges into these, where they are not in full.
        fills: for edges whose target reads channels that the source lacks, what stands for them.
        bypassed, forwarded: of the vertices, those that live and pass an input on.
        missing: edges into absent outputs, with the names of the absent vertices they come from.
        unread: how many readers vertices lost that are still there.
        vertices: those that changed, as bits of a number; without those that nothing ever reads.
        loses: those of `unread`, likewise.
    """

    changed: dict[int, Flow]
    wants: list[tuple[int, State]]
    fills: list[tuple[int, float]]
    bypassed: Group
    forwarded: Group
    missing: list[tuple[int, str]]
    unread: dict[int, int]
    vertices: int
    loses: int

    @property
    def own(self) -> Iterator[tuple[int, Flow]]:
        """What changed of `vertices`: no two pieces of a mask have any of it in common."""
        return (item for item in self.changed.items() if self.vertices >> item[0] & 1)

    @cached_property
    def mark(self) -> int:
        """The sum of a hash for each change, so that marks of pieces add up to that of a whole."""
        return sum(map(hash, self.own)) + sum(hash((v,)) for v in self.bypassed)

    def runs(self, vertex: int) -> bool:
        """Whether one of the changed vertices is live and its operator more than the identity."""
        live = self.changed[vertex].out is not None
        return live and vertex not in self.bypassed and vertex not in self.forwarded


def changes(graph: Graph, removal: Removal) -> Piece:
    """What a removal changes.

    Only the vertices that it reaches are looked at: whatever has all its inputs in full gives its
    output in full. So the time taken is that of what changes, not of the network.
    """
    flows = forward(graph, removal)
    changed, wants = backward(graph, flows)
    live = {index: flow for index, flow in changed.items() if flow.out is not None}
    gone = {index for index, flow in flows.items() if flow.out is None}
    outputs = [index for index in gone if graph.vertices[index].op == "output"]
    into = [(e, graph.edges[e].source) for index in outputs for e in graph.inputs[index]]
    filled = [(e, flow.fill) for i, flow in live.items() if flow.fill for e in graph.inputs[i]]
    never = unused(graph)
    ends = (graph.edges[edge] for edge, want in wants.items() if want is None)
    lost = Counter(end.source for end in ends if end.target not in never)
    unread = {i: n for i, n in lost.items() if i in live or i not in changed}
    return Piece(
        changed=changed,
        wants=list(wants.items()),
        fills=[(edge, fill) for edge, fill in filled if wants.get(edge, FULL) is not None],
        bypassed=frozenset(live.keys() & removal.layers),
        forwarded=frozenset(
            i for i, flow in live.items() if flow.forward and i not in removal.layers
        ),
        missing=[(e, graph.vertices[s].name) for e, s in into if e in removal.edges or s in gone],
        unread=unread,
        vertices=sum(1 << i for i in changed if i not in never),
        loses=sum(1 << i for i in unread),
    )


def apart(graph: Graph, units: Iterable[int]) -> list[Piece]:
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
            return pieces
        groups = joined
    return [_worked_out(graph, frozenset[int]().union(*groups))]


def _worked_out(graph: Graph, units: Group) -> Piece:
    return changes(graph, Removal.union(graph.units[unit].removal for unit in units))


def _piece(graph: Graph, units: Group) -> Piece:
    """What the removal of some units changes; those of one unit and small ones are remembered."""
    known = _known(graph)
    if units in known:
        return known[units]
    found = _worked_out(graph, units)
    if len(units) < 2 or len(found.changed) <= max(SMALL, len(graph.vertices) // PART):
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
    return frozenset(backward(graph, {})[0])


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
