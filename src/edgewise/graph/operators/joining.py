"""Numbers of channels, and joining those that can only be removed together.

Every channel that an operator with a weight of its own produces gets a number. Coupling moves
the numbers through an operator as its flow moves absence, with the methods of `Joining`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..vertices import Vertex

Ids = np.ndarray[Any, np.dtype[np.intp]]
Axes = tuple[int, ...]
Labels = dict[Axes, Ids]  # which channel an element belongs to, by its place along these axes


@dataclass(frozen=True, slots=True)
class Place:
    """The channels of a vertex's output, along one axis."""

    vertex: int
    axis: int


class Joining:
    """What is known of the channels so far.

    Attributes:
        count: how many numbers there are.
        pairs: numbers that go together.
        fixed: numbers that cannot go, and why.
        heads: numbers that a product of tensors joined.
        joined: numbers that a sum or a concatenation joined.
        writes: where channels are produced.
        reads: where they are mixed into others.
    """

    def __init__(self) -> None:
        self.count = 0
        self.pairs: list[tuple[Ids, Ids]] = []
        self.fixed: list[tuple[Ids, str]] = []
        self.heads: list[Ids] = []
        self.joined: list[Ids] = []
        self.writes: dict[Place, Ids] = {}
        self.reads: dict[Place, Ids] = {}

    def enter(self, index: int, vertex: Vertex, sources: Sequence[int]) -> None:
        """Go on to an operator, which reads these vertices."""
        self.index, self.vertex, self.sources = index, vertex, sources

    def new(self, size: int) -> Ids:
        """As many new numbers."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def write(self, axis: int) -> Ids:
        """Numbers for channels that the operator makes with a weight of its own."""
        ids = self.writes[Place(self.index, axis)] = self.new(self.vertex.channels(axis))
        return ids

    def read(self, slot: int, axis: int, ids: Ids) -> None:
        """The operator mixes these channels into others, or drops them."""
        self.reads.setdefault(Place(self.sources[slot], axis), ids)

    def classes(self) -> Ids:
        """For every number, the class of those that go together."""
        ends = [np.concatenate([np.ravel(p[side]) for p in self.pairs] or [np.empty(0, np.intp)])
                for side in (0, 1)]  # fmt: skip
        return connected(self.count, ends)

    def class_of(self, ids: Ids) -> Ids:
        """The numbers, each as the least of those that it goes with so far."""
        classes = self.classes()
        least: Ids = np.unique(classes, return_index=True)[1]
        return least[classes[ids]]

    def join(self, a: Ids, b: Ids) -> None:
        """These go together, number by number."""
        left, right = np.broadcast_arrays(a, b)
        if left is not right and not np.array_equal(left, right):
            self.pairs.append((left, right))

    def refuse(self, ids: Ids, reason: str) -> None:
        """These cannot go."""
        self.fixed.append((ids, reason))

    def fix(self, ins: Sequence[Labels]) -> Labels:
        """The operator needs all these channels."""
        shared = "whose weights are shared or computed, " if self.vertex.shared else ""
        reason = f"{self.vertex.name} ({self.vertex.op}), {shared}needs all of them"
        if self.vertex.op == "output":
            reason = "they are an output of the model"
        for labels in ins:
            for ids in labels.values():
                self.refuse(ids, reason)
        return {}

    def collapse(self, axes: Axes, ids: Ids, keep: Axes) -> Ids:
        """Number an axis group by some of its axes only: the rest goes as a whole."""
        order = [axes.index(a) for a in keep] + [i for i, a in enumerate(axes) if a not in keep]
        flat = ids.transpose(order).reshape(*(ids.shape[axes.index(a)] for a in keep), -1)
        self.join(flat[..., :1], flat)
        return flat[..., 0]

    def pass_on(self, axes: Axes, ids: Ids, to: Sequence[int | None], out: Labels) -> bool:
        """Move numbers to other axes; those of axes without one go as a whole. False: none has."""
        keep = tuple(a for a in axes if to[a] is not None)
        if not keep:
            return False
        moved = self.collapse(axes, ids, keep) if keep != axes else ids
        self.put(out, tuple(target for a in keep if (target := to[a]) is not None), moved)
        return True

    def pass_or_fix(self, axes: Axes, ids: Ids, to: Sequence[int | None], out: Labels) -> None:
        """As `pass_on`; channels without an axis to go to are all needed."""
        if not self.pass_on(axes, ids, to, out):
            self.fix([{axes: ids}])

    def put(self, out: Labels, axes: Axes, ids: Ids) -> None:
        """Add numbers to those of a tensor; groups that overlap are joined on what they share."""
        order = tuple(sorted(axes))
        ids = ids.transpose([axes.index(a) for a in order])
        for other in [o for o in out if set(o) & set(order)]:
            theirs = out.pop(other)
            common = tuple(a for a in order if a in other)
            ids = self.collapse(order, ids, common) if common != order else ids
            theirs = self.collapse(other, theirs, common) if common != other else theirs
            self.join(ids, theirs)
            order = common
        out[order] = ids


def connected(count: int, ends: Sequence[Ids]) -> Ids:
    """For every number below `count`, that of those it goes with, given the ends of all pairs."""
    if not count:
        return np.empty(0, np.intp)
    links = coo_array((np.ones(len(ends[0])), (ends[0], ends[1])), (count, count))
    found: Ids = connected_components(links, directed=False)[1]
    return found


def weighted(vertex: Vertex) -> int | None:
    """The output axis that a weight of two or more dimensions follows."""
    for parameter in vertex.params:
        if len(parameter.shape) > 1:
            for follow in parameter.follows:
                if follow is not None and follow[0] == "out" and not vertex.shared:
                    return follow[1]
    return None
