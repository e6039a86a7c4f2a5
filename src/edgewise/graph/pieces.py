"""What removals change, in pieces that do not meet: each is worked out once, not in every mask."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .flows import backward, forward
from .graph import Graph, once
from .operators.absence import FULL, Flow, State
from .removal import Removal

RECENT = 4096  # pieces that a graph remembers, beside one for each of its units
Group = frozenset[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a removal changes of a network.

    Args:
        changed: what those vertices give and take that it reaches.
        states, wants: of these vertices and of the edges into them, where they are not in full.
        fills: for edges whose target reads channels that the source lacks, what stands for them.
        bypassed, forwarded: of the vertices, those that live and pass an input on.
        missing: edges into absent outputs, with the names of the absent vertices they come from.
        unread: how many readers vertices lost that are still there.
        vertices: those that changed, as bits of a number; without those that nothing ever reads.
    """

    changed: dict[int, Flow]
    states: list[tuple[int, State]]
    wants: list[tuple[int, State]]
    fills: list[tuple[int, float]]
    bypassed: Group
    forwarded: Group
    missing: list[tuple[int, str]]
    unread: Counter[int]
    vertices: int


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
    unused = _unused(graph)
    ends = (graph.edges[edge] for edge, want in wants.items() if want is None)
    unread = Counter(end.source for end in ends if end.target not in unused)
    return Piece(
        changed=changed,
        states=[(index, flow.out) for index, flow in changed.items()],
        wants=list(wants.items()),
        fills=[(edge, fill) for edge, fill in filled if wants.get(edge, FULL) is not None],
        bypassed=frozenset(live.keys() & removal.layers),
        forwarded=frozenset(
            i for i, flow in live.items() if flow.forward and i not in removal.layers
        ),
        missing=[(e, graph.vertices[s].name) for e, s in into if e in removal.edges or s in gone],
        unread=Counter({i: n for i, n in unread.items() if i in live or i not in changed}),
        vertices=sum(1 << i for i in changed if i not in unused),
    )


def apart(graph: Graph, units: Iterable[int]) -> list[Piece]:
    """Pieces, none of which another one touches, of what the removal of all these units changes.

    A vertex looks at its inputs and at whether anyone reads it. So pieces are what they would be
    alone as long as they have no vertex in common, and do not together take all readers from one.
    """
    together = defaultdict[int | tuple[int, ...], list[int]](list)
    for unit in units:  # widths of one group meet in any case
        together[graph.group_of.get(unit, unit)].append(unit)
    groups = [frozenset(some) for some in together.values()] or [frozenset()]
    count, piece = sum(map(len, groups)), _piece(graph)
    while True:
        if 2 * max(map(len, groups)) > count:  # most is one piece, and so may be the rest
            return [piece(frozenset[int]().union(*groups))]
        pieces = [piece(group) for group in groups]
        joined = _joined(graph, groups, pieces)
        if len(joined) == len(groups):
            return pieces
        groups = joined


@once
def _unused(graph: Graph) -> frozenset[int]:
    """The vertices that no output needs, whatever is removed."""
    return frozenset(backward(graph, {})[0])


@once
def _readers(graph: Graph) -> list[int]:
    """How many edges read each vertex, those of unused ones aside."""
    unused = _unused(graph)
    return [sum(graph.edges[e].target not in unused for e in edges) for edges in graph.consumers]


@once
def _piece(graph: Graph) -> Callable[[Group], Piece]:
    """What the removal of some units changes, remembered for the last ones."""

    @lru_cache(RECENT + len(graph.units))
    def piece(units: Group) -> Piece:
        return changes(graph, Removal.union(graph.units[unit].removal for unit in units))

    return piece


def _joined(graph: Graph, groups: Sequence[Group], pieces: Sequence[Piece]) -> list[Group]:
    """The groups, those in one whose pieces meet."""
    found: dict[Group, int] = {}
    taken = 0
    for group, vertices in zip(groups, (piece.vertices for piece in pieces), strict=True):
        if vertices & taken:
            meets = [other for other, theirs in found.items() if theirs & vertices]
            group = group.union(*meets)
            for other in meets:
                vertices |= found.pop(other)
        found[group] = vertices
        taken |= vertices
    if len(found) < len(groups):
        return list(found)
    unread, readers = Counter[int](), _readers(graph)
    for piece in pieces:
        unread.update(piece.unread)
    for vertex, lost in unread.items():
        if lost == readers[vertex]:
            those = [g for g, piece in zip(groups, pieces, strict=True) if vertex in piece.unread]
            return [group for group in groups if group not in those] + [frozenset().union(*those)]
    return list(groups)
