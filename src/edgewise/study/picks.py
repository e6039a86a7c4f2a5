"""The masks that scores of one pass would choose: what a search measures before it learns.

Single branches that hardly turn a stream may turn it much together. So the stream before several
neighbours in a row is compared with the stream behind them, as Gromov et al., "The unreasonable
ineffectiveness of the deeper layers", 2024, eq. 5, do for one block of layers; block influence of
Men et al., "ShortGPT", 2024, is that of a run of one layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..evaluation.objective import Objective
from ..evaluation.sizes import few
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..search import Space
from ..search.picks import cheapest
from .scores import first_changed, influence

FEW, PLACES = 32, 512  # examples, and places of all, so that a pick needs little time and memory


def picks(space: Space, objective: Objective) -> list[Mask]:
    """The masks at the budget that block influence would choose, of single units and of runs.

    Runs are of 2, 4, 8, ... neighbours, up to one that meets the budget alone. None where parts of
    a model are traced, whose inputs only the model around them knows.
    """
    if space.graph.program.whole is not None or not len(space.free):
        return []
    batch = few(objective.splits["search"][0], FEW)
    streams = [chain for chain in chains(space) if len(chain) > 1]
    directions = Directions(space.graph, streams)
    single = cheapest(space, influence(space.graph, [batch], directions.see))
    found = dict.fromkeys([] if single is None else [single])
    return list(found | dict.fromkeys(_runs(space, streams, directions.seen)))


@dataclass(frozen=True)
class Link:
    """A unit on a stream, and the vertices before and behind it."""

    unit: int
    before: int
    behind: int


def chains(space: Space) -> list[list[Link]]:
    """Units that follow each other on one stream, such as the branches of a residual network.

    Of several that end at one vertex, that counts before which the stream goes farthest.
    """
    graph = space.graph
    by_end = dict[int, Link]()
    for link in filter(None, (_link(graph, u) for u in space.free)):
        if link.behind not in by_end or link.before > by_end[link.behind].before:
            by_end[link.behind] = link
    following, heads = dict[int, Link](), list[Link]()
    for link in sorted(by_end.values(), key=lambda link: link.behind):
        end = _upstream(graph, link.before, by_end)
        if end is None or following.setdefault(by_end[end].unit, link) is not link:
            heads.append(link)
    found = [[head] for head in heads]
    for chain in found:
        while (after := following.get(chain[-1].unit)) is not None:
            chain.append(after)
    return found


def _link(graph: Graph, unit: int) -> Link | None:
    """Where a unit's removal leaves the stream as it is before it; None where it does not."""
    if graph.units[unit].group or not graph.units[unit].cost.macs:  # a width, or a skip
        return None
    alive, ends = liveness(graph, graph.mask([unit])), list[tuple[int, int]]()
    for vertex in sorted(first_changed(graph, alive)):
        rest = [e for e in graph.inputs[vertex] if alive.wants[e] is not None]
        if len(rest) != 1 or not _alike(graph, vertex, graph.edges[rest[0]].source):
            return None
        ends.append((graph.edges[rest[0]].source, vertex))
    return Link(unit, ends[0][0], ends[-1][1]) if ends else None


def _upstream(graph: Graph, vertex: int, ends: Mapping[int, Link]) -> int | None:
    """The end of a link that a vertex reads, itself or through operators that keep its form."""
    while vertex not in ends:
        into = graph.inputs[vertex]
        if len(into) != 1 or graph.vertices[vertex].params:
            return None
        source = graph.edges[into[0]].source
        if not _alike(graph, vertex, source):
            return None
        vertex = source
    return vertex


def _alike(graph: Graph, first: int, second: int) -> bool:
    """Whether two vertices give tensors of one shape."""
    return graph.vertices[first].shape == graph.vertices[second].shape is not None


def _runs(
    space: Space, found: Sequence[Sequence[Link]], directions: Mapping[int, torch.Tensor]
) -> Iterator[Mask]:
    """The masks of runs of 2, 4, 8, ... neighbours, those first that turn the stream least."""
    length, longest = 2, max(map(len, found), default=0)
    while length <= longest:
        runs = [c[i : i + length] for c in found for i in range(len(c) - length + 1)]
        order = sorted(runs, key=lambda run: _turn(directions, run) / _saving(space, run))
        units = list(dict.fromkeys(link.unit for run in _apart(order) for link in run))
        mask = space.removing(space.graph.empty, units)
        if space.allows(mask):
            yield space.refilled(mask, units[::-1])
        if space.excess(space.graph.mask([link.unit for link in order[0]])) <= 0:
            return
        length *= 2


def _apart(runs: Sequence[Sequence[Link]]) -> Iterator[Sequence[Link]]:
    """The runs without those that share a unit with an earlier one."""
    taken = set[int]()
    for run in runs:
        units = {link.unit for link in run}
        if taken.isdisjoint(units):
            taken |= units
            yield run


def _saving(space: Space, run: Sequence[Link]) -> float:
    """Relative to the limits; units are alike where only their number is limited."""
    return sum(space.saving(link.unit) for link in run) or float(len(run))


def _turn(directions: Mapping[int, torch.Tensor], run: Sequence[Link]) -> float:
    """One minus the mean cosine of the stream before and behind a run."""
    before, behind = directions[run[0].before], directions[run[-1].behind]
    return 1.0 - float((before * behind).sum(-1).mean())


class Directions:
    """Where the ends of links point, seen while a network runs.

    Args:
        graph: of the links.
        found: links in the order of each stream.

    Attributes:
        seen: by vertex, of length one, what it gives at some places of a few examples.
    """

    def __init__(self, graph: Graph, found: Sequence[Sequence[Link]]) -> None:
        self.seen = dict[int, torch.Tensor]()
        self._wanted = dict[str, tuple[int, int | None]]()
        for chain in found:  # whose tensors are of one form
            ends = [end for link in chain for end in (link.behind, link.before)]
            channels = next((c for end in ends if (c := _channels(graph, end)) is not None), None)
            self._wanted |= {graph.vertices[end].node: (end, channels) for end in ends}

    def see(self, node: str, value: torch.Tensor) -> None:
        """Note where a node's value points, if it is an end."""
        if node in self._wanted:
            vertex, channels = self._wanted[node]
            self.seen[vertex] = _direction(value, channels)


def _channels(graph: Graph, vertex: int) -> int | None:
    """The axis of a stream's channels, as the nearest parameters say that go along with it."""
    todo = [vertex]
    for index in todo:
        for parameter in graph.vertices[index].params:
            axes = [follow[1] for follow in parameter.follows if follow and follow[0] == "out"]
            if axes:
                return axes[-1]
        sources = [graph.edges[edge].source for edge in graph.inputs[index]]
        todo += [s for s in sources if s not in todo and _alike(graph, s, vertex)]
    return None


def _direction(value: torch.Tensor, channels: int | None) -> torch.Tensor:
    """[examples, places, channels] unit vectors; one place where channels are not known."""
    rows = value.reshape(len(value), 1, -1)
    if channels:
        last = value.movedim(channels, -1)
        rows = last.reshape(len(value), -1, last.shape[-1])
    count = min(rows.shape[1], max(PLACES // len(value), 1))
    some = torch.linspace(0, rows.shape[1] - 1, count).long()
    return torch.nn.functional.normalize(rows[:, some].float(), dim=-1)
