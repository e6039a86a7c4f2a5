"""The path sum as rows for a solver.

Nodes through which every path goes cut the graph into segments, and z_out is the product of what
each segment passes on. Its logarithm is a sum over segments, so that the segments of a residual
network, hundreds of factors, meet in one linear objective. Where few removals are possible in a
segment there is a variable for each; elsewhere a logarithm, being concave, lies below its tangents.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from ...surrogates.path_graph import Flow
from .model import Frame
from .rows import Rows

Array = NDArray[np.float64]
Groups = Sequence[Sequence[int]]
_FEW = 128  # states of a segment that are all looked at
_LEAST = 1e-4  # share that a segment passes on, below which logarithms are not followed
_LOWEST = float(np.log(_LEAST)) - 2.0  # below every bound of a logarithm, also at 0
_STEP = 0.8  # between the shares at which there are tangents from the start


@dataclass
class Segment:
    """The ways between two nodes through which every path goes.

    Args:
        nodes: first node, inner nodes and last node, in topological order.
        ways: all ways between them.
        units: that cut one of these.
        share: the variable of what passes, 1 with nothing removed.
        log: the variable of its logarithm.
        touched: shares at which the bound of the logarithm is exact.
        shares: what passes where units are removed (a bit a unit); None where there are too many
            ways to do so.
    """

    nodes: range
    ways: range
    units: tuple[int, ...]
    share: int = -1
    log: int = -1
    touched: list[float] = field(default_factory=list)
    shares: Mapping[tuple[bool, ...], float] | None = None

    def passes(self, flow: Flow, weights: Array, keep: Array) -> Array:
        """[n_masks] what passes; keep is [n_ways, n_masks]."""
        first = self.nodes.start
        z = np.ones((len(self.nodes), keep.shape[1]))
        for node in self.nodes[1:]:
            ways = flow.into[node]
            passed = weights[ways, None] * keep[ways]
            z[node - first] = np.einsum("en,en->n", passed, z[flow.tails[ways] - first])
        return np.asarray(z[-1])

    def states(self, flow: Flow, weights: Array, nested: Groups) -> dict[tuple[bool, ...], float]:
        """What passes, for each way to remove units of which something does; {} if too many."""
        place = {unit: i for i, unit in enumerate(self.units)}
        groups = [[place[u] for u in group if u in place] for group in nested]
        alone = set(place.values()).difference(*groups) if groups else set(place.values())
        groups = [group for group in groups if group] + [[i] for i in sorted(alone)]
        if np.prod([len(group) + 1.0 for group in groups]) > _FEW:
            return {}
        counts = np.array(list(product(*(range(len(group) + 1) for group in groups))))
        removed = np.zeros((len(counts), len(self.units)), dtype=bool)
        for column, group in enumerate(groups):
            for rank, i in enumerate(group):
                removed[:, i] = counts[:, column] > rank
        keep = np.ones((len(flow.tails), len(removed)))
        own = slice(self.ways.start, self.ways.stop)
        keep[own] = flow.cuts[own][:, list(self.units)] @ removed.T < 0.5
        shares = self.passes(flow, weights, keep)
        rows = zip(removed.tolist(), shares.tolist(), strict=True)
        return {tuple(gone): share for gone, share in rows if share > 0}

    def touch(self, rows: Rows, share: float) -> bool:
        """Add the tangent at a share; False if there is one, or all shares are known."""
        near = any(abs(share - known) <= 1e-6 * share for known in self.touched)
        if self.shares is not None or near or share < _LEAST:
            return False
        self.touched.append(share)
        rows.at_most({self.log: 1.0, self.share: -1.0 / share}, float(np.log(share)) - 1.0)
        return True


def whole_segment(flow: Flow) -> Segment:
    """The whole graph as one segment."""
    units = np.flatnonzero(flow.cuts.any(axis=0))
    return Segment(range(flow.nodes), range(len(flow.tails)), tuple(int(u) for u in units))


def segments(flow: Flow, weights: Array, nested: Groups = ()) -> list[Segment]:
    """The segments that masks can narrow but not close, from the source to the sink.

    Others are cut by no unit, or by such only that no valid mask removes. `nested` are groups of
    units that are removed in their order.
    """
    farthest = np.zeros(flow.nodes, dtype=np.intp)
    np.maximum.at(farthest, flow.tails, flow.heads)
    reach = np.maximum.accumulate(farthest)
    gates = [0, *(v for v in range(1, flow.nodes) if reach[v - 1] <= v)]
    found = []
    for first, last in pairwise(gates):
        into = flow.into
        ways = range(into[first + 1].start, into[last].stop)
        units = np.flatnonzero(flow.cuts[ways.start : ways.stop].any(axis=0))
        if units.size:
            nodes = range(first, last + 1)
            segment = Segment(nodes, ways, tuple(int(u) for u in units))
            segment.shares = segment.states(flow, weights, nested) or None
            if segment.shares is None or len(segment.shares) > 1:
                found.append(segment)
    return found


@dataclass(frozen=True)
class PathRows:
    """Writes a path sum into rows.

    Args:
        flow: the reduced graph.
        weights: [n_ways] of its ways.
        rows: where it is written.
        frame: with whose rows these start.
    """

    flow: Flow
    weights: Array
    rows: Rows
    frame: Frame

    @property
    def keeps(self) -> Sequence[int]:
        return self.frame.keeps

    def greatest(self, segment: Segment) -> None:
        """Bound what passes a segment from above.

        w_e ≤ z_tail, w_e ≤ keep for each unit that cuts e, z_v ≤ Σ a_e w_e. What carries nothing
        to the sink may as well carry nothing at all, so that w_e is also no more than what says
        that e is alive.
        """
        edges = self._edges
        z, sums = self._nodes(segment)
        for way in segment.ways:
            tail, cut = z[int(self.flow.tails[way])], self._cut(way)
            passed = tail
            if cut:
                passed = self.rows.variable()
                for bound in dict.fromkeys([tail, *cut, *self.frame.carries.get(edges[way], ())]):
                    self.rows.at_least({bound: 1.0, passed: -1.0}, 0.0)
            sums[int(self.flow.heads[way])][passed] += float(self.weights[way])
        for node, terms in sums.items():
            self.rows.at_most({**{k: -v for k, v in terms.items()}, z[node]: 1.0}, 0.0)

    def least(self, segment: Segment) -> None:
        """Bound what passes from below: w_e ≥ z_tail - Σ (1 - keep), z_v ≥ Σ a_e w_e."""
        z, sums = self._nodes(segment)
        for way in segment.ways:
            tail, cut = z[int(self.flow.tails[way])], self._cut(way)
            passed = self.rows.variable() if cut else tail
            if cut:
                terms = {passed: 1.0, tail: -1.0} | dict.fromkeys(cut, -1.0)
                self.rows.at_least(terms, -float(len(cut)))
            sums[int(self.flow.heads[way])][passed] += float(self.weights[way])
        for node, terms in sums.items():
            self.rows.at_least({**{k: -v for k, v in terms.items()}, z[node]: 1.0}, 0.0)

    def logarithm(self, segment: Segment) -> None:
        """Bound the logarithm of what passes: exactly by few states, else by tangents."""
        segment.log = self.rows.variable(least=_LOWEST, most=0.0)
        if segment.shares is None:
            self.greatest(segment)
            for power in range(int(np.log(_LEAST) / np.log(_STEP))):
                segment.touch(self.rows, _STEP**power)
        else:
            self._by_states(segment, segment.shares)

    def _by_states(self, segment: Segment, shares: Mapping[tuple[bool, ...], float]) -> None:
        """One variable a state, of which one is 1: the hull of what is kept, passes and is paid.

        What is alive where certain units of the segment are kept is alive in so many states.
        """
        rows = self.rows
        states = [(rows.variable(), removed, share) for removed, share in shares.items()]
        rows.at_least({state: 1.0 for state, _, _ in states}, 1.0)
        rows.at_most({state: 1.0 for state, _, _ in states}, 1.0)
        rows.lower[segment.log] = min(float(np.log(share)) for _, _, share in states)
        terms = {state: -float(np.log(share)) for state, _, share in states}
        rows.at_most({**terms, segment.log: 1.0}, 0.0)
        place = {self.keeps[unit]: i for i, unit in enumerate(segment.units)}
        for keep, i in place.items():
            terms = {state: -1.0 for state, removed, _ in states if not removed[i]}
            rows.at_least({**terms, keep: 1.0}, 0.0)
            rows.at_most({**terms, keep: 1.0}, 0.0)
        for parts, variable in self.frame.conjunctions.items():
            if parts <= place.keys():
                wanted = [place[part] for part in parts]
                terms = {s: -1.0 for s, gone, _ in states if not any(gone[i] for i in wanted)}
                rows.at_least({**terms, variable: 1.0}, 0.0)

    def _nodes(self, segment: Segment) -> tuple[dict[int, int], dict[int, dict[int, float]]]:
        """A variable for each node, and the terms of the sum into each but the first."""
        z = {node: self.rows.variable() for node in segment.nodes}
        self.rows.lower[z[segment.nodes[0]]] = 1.0
        segment.share = z[segment.nodes[-1]]
        return z, {node: defaultdict(float) for node in segment.nodes[1:]}

    def _cut(self, way: int) -> list[int]:
        return [self.keeps[int(unit)] for unit in np.flatnonzero(self.flow.cuts[way])]

    @cached_property
    def _edges(self) -> dict[int, int]:
        """For each way, an edge of the graph that it ends with; -1 if there is none."""
        found = dict.fromkeys(range(len(self.flow.tails)), -1)
        for way, origin in zip(self.flow.ways, self.flow.origin.tolist(), strict=True):
            if origin >= 0 and way.edge >= 0:
                found[origin] = way.edge
        return found
