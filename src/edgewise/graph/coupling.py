"""Which channels stand or fall together: coupled producers, found in one pass over the graph.

Every channel that an operator with a weight of its own produces gets a number. The numbers travel
with the channels through the graph, each rule of absence moving them as it moves absence; where a
rule needs two channels to be absent together (the summands of a residual stream, the two sides of
a gate, queries and keys of a head), their numbers are joined. What remains after the pass are
classes of channels. The analysis only proposes them: `liveness` decides what a removal does, and
`widths` offers no unit for which it does not do what is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .graph import Graph, Shape, Vertex
from .operators import absence
from .operators.table import TABLE

Ids = np.ndarray[Any, np.dtype[np.intp]]
Axes = tuple[int, ...]
Labels = dict[Axes, Ids]  # which channel an element belongs to, by its place along these axes
_PRODUCING = (absence.mix, absence.contract)


@dataclass(frozen=True, slots=True)
class Place:
    """The channels of a vertex's output, along one axis."""

    vertex: int
    axis: int


@dataclass(frozen=True)
class Coupling:
    """Classes of channels that can only be removed together.

    Args:
        writes: where channels are produced, and the class of each (-1: cannot be removed).
        reads: where they are mixed into others, and the class of each.
        heads: classes that a product of tensors joined: attention heads.
        joined: classes that a sum or a concatenation joined: the channels of a residual stream.
        refused: why the channels of a vertex cannot be removed, by vertex.
    """

    writes: Mapping[Place, Ids]
    reads: Mapping[Place, Ids]
    heads: frozenset[int]
    joined: frozenset[int]
    refused: Mapping[int, str]


def couple(graph: Graph) -> Coupling:
    """The coupled channels of a graph."""
    return _Pass(graph).run()


class _Pass:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.count = 0
        self.pairs: list[tuple[Ids, Ids]] = []
        self.fixed: list[tuple[Ids, str]] = []
        self.heads: list[Ids] = []
        self.joined: list[Ids] = []
        self.writes: dict[Place, Ids] = {}
        self.reads: dict[Place, Ids] = {}
        self.labels: list[Labels] = []
        self.index = 0

    def run(self) -> Coupling:
        for index, vertex in enumerate(self.graph.vertices):
            self.index = index
            edges = self.graph.inputs[index]
            ins = [self.labels[self.graph.edges[e].source] for e in edges]
            flow = TABLE.rules[vertex.op].flow
            rule = _RULES.get(flow, _Pass.fix)
            if vertex.shared and flow not in (absence.add, absence.multiply, absence.concat):
                rule = _Pass.fix
            out = rule(self, vertex, self.graph.input_shapes[index], ins)
            if (axis := produced(vertex)) is not None and (axis,) not in out:
                assert vertex.shape is not None
                ids = self.new(vertex.shape[axis])
                out[axis,] = self.writes[Place(index, axis)] = ids
            self.labels.append(out)
        return self.result()

    def new(self, size: int) -> Ids:
        self.count += size
        return np.arange(self.count - size, self.count)

    def result(self) -> Coupling:
        ends = [np.concatenate([np.ravel(p[side]) for p in self.pairs] or [np.empty(0, np.intp)])
                for side in (0, 1)]  # fmt: skip
        links = coo_array((np.ones(len(ends[0])), (ends[0], ends[1])), (self.count, self.count))
        classes = connected_components(links, directed=False)[1] if self.count else np.empty(0, int)
        reasons: dict[int, str] = {}
        for ids, reason in self.fixed:
            for one in np.unique(classes[np.ravel(ids)]):
                reasons.setdefault(int(one), reason)
        bad = np.array(sorted(reasons), dtype=np.intp)

        def found(ids: Ids) -> Ids:
            named = classes[ids]
            return np.where(np.isin(named, bad), -1, named)

        def marked(arrays: Iterable[Ids]) -> frozenset[int]:
            return frozenset(int(c) for ids in arrays for c in np.unique(classes[np.ravel(ids)]))

        refused = {}
        for place, ids in self.writes.items():
            named = classes[ids]
            if np.isin(named, bad).all():
                refused[place.vertex] = reasons[int(named[0])]
        return Coupling(
            writes={place: found(ids) for place, ids in self.writes.items()},
            reads={place: found(ids) for place, ids in self.reads.items()},
            heads=marked(self.heads),
            joined=marked(self.joined),
            refused=refused,
        )

    # -- joining ---------------------------------------------------------------------------

    def join(self, a: Ids, b: Ids) -> None:
        left, right = np.broadcast_arrays(a, b)
        if left is not right and not np.array_equal(left, right):
            self.pairs.append((left, right))

    def refuse(self, ids: Ids, reason: str) -> None:
        self.fixed.append((ids, reason))

    def fix(self, vertex: Vertex, shapes: Sequence[Shape | None], ins: Sequence[Labels]) -> Labels:
        """An operator that needs all the channels of its inputs."""
        shared = "whose weights are shared or computed, " if vertex.shared else ""
        if vertex.op == "output":
            reason = "they are an output of the model"
        elif TABLE.rules[vertex.op].flow not in (*_RULES, absence.join, absence.take):
            reason = f"{vertex.name} ({vertex.op}) is a custom operator without a channel rule"
        else:
            reason = f"{vertex.name} ({vertex.op}), {shared}needs all of them"
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

    # -- one method a rule of absence ------------------------------------------------------

    def by_axes(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        if len(ins) != 1:
            return self.fix(vertex, shapes, ins)
        out: Labels = {}
        for axes, ids in ins[0].items():
            if not self.pass_on(axes, ids, vertex.attrs["axes"], out):
                self.fix(vertex, shapes, [{axes: ids}])
        return out

    def reduce(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        if len(ins) != 1:
            return self.fix(vertex, shapes, ins)
        out: Labels = {}
        for axes, ids in ins[0].items():
            self.pass_on(axes, ids, vertex.attrs["axes"], out)
        return out

    def mix(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        if len(ins) != 1 or vertex.shape is None:
            return self.fix(vertex, shapes, ins)
        mixes, groups = vertex.attrs["mixes"], vertex.attrs.get("groups", 1)
        to = [a if i != mixes else None for i, a in enumerate(vertex.attrs["axes"])]
        out: Labels = {}
        for axes, ids in ins[0].items():
            if axes == (mixes,) and groups == 1:
                self.read(0, mixes, ids)
            elif axes == (mixes,):
                rows = ids.reshape(groups, -1)
                self.join(rows[:, :1], rows)
                out[axes] = np.repeat(rows[:, 0], vertex.shape[mixes] // groups)
                if (axis := _weighted(vertex)) is not None:
                    own = self.writes[Place(self.index, axis)] = self.new(vertex.shape[axis])
                    self.join(own, out[axes])
            elif not self.pass_on(axes, ids, to, out):
                self.fix(vertex, shapes, [{axes: ids}])
        return out

    def read(self, slot: int, axis: int, ids: Ids) -> None:
        source = self.graph.edges[self.graph.inputs[self.index][slot]].source
        self.reads.setdefault(Place(source, axis), ids)

    def contract(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        out: Labels = {}
        summed: dict[str, list[Ids]] = {}
        for slot, (labels, names, shape) in enumerate(
            zip(ins, vertex.attrs["labels"], shapes, strict=True)
        ):
            to = [name if isinstance(name, int) else None for name in names]
            for axes, ids in labels.items():
                if len(axes) == 1 and isinstance(names[axes[0]], str):
                    summed.setdefault(names[axes[0]], []).append(ids)
                    self.read(slot, axes[0], ids)
                    continue
                served = self._served(vertex, names, shape, axes, ids)
                if not self.pass_on(axes, served, to, out):
                    self.fix(vertex, shapes, [{axes: ids}])
        for first, *others in summed.values():
            for other in others:
                self.join(first, other)
        if len(ins) > 1:
            self.heads += [ids for axes, ids in out.items() if len(axes) == 1]
        return out

    def _served(
        self, vertex: Vertex, names: Sequence[Any], shape: Shape, axes: Axes, ids: Ids
    ) -> Ids:
        """The numbers of keys that serve several heads each, once for each head."""
        for position, axis in enumerate(axes):
            name = names[axis]
            if isinstance(name, int) and vertex.shape is not None:
                ids = np.repeat(ids, vertex.shape[name] // shape[axis], axis=position)
        return ids

    def merge(
        self, vertex: Vertex, shapes: Any, ins: Sequence[Labels], alone: Sequence[bool]
    ) -> Labels:
        """Operands element by element; one without numbers that may stand alone fixes the rest."""
        assert vertex.shape is not None
        full, out = vertex.shape, dict[Axes, Ids]()
        held: set[int] = set()
        for labels, shape in zip(ins, shapes, strict=True):
            shift = len(full) - len(shape)
            to = [a + shift if size == full[a + shift] else None for a, size in enumerate(shape)]
            for axes, ids in labels.items():
                up = [a for axis in axes if (a := to[axis]) is not None]
                known = any(np.array_equal(ids, theirs) for theirs in out.values())
                if vertex.op in ("add", "sub") and held.intersection(up) and not known:
                    self.joined.append(ids)
                held.update(up)
                if not self.pass_on(axes, ids, to, out):
                    self.fix(vertex, shapes, [{axes: ids}])
        for labels, shape, own in zip(ins, shapes, alone, strict=True):
            shift = len(full) - len(shape)
            mine = {a + shift for axes in labels for a in axes}
            for axes in [o for o in out if own and not set(o) & mine]:
                if all(a >= shift and shape[a - shift] == full[a] for a in axes):
                    self.refuse(out[axes], f"{vertex.name} ({vertex.op}) adds what cannot be cut")
        return out

    def add(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        return self.merge(vertex, shapes, ins, [True] * len(ins))

    def multiply(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        whole = [shape == vertex.shape for shape in shapes]
        alone = [a and w for a, w in zip(vertex.attrs["alone"], whole, strict=True)]
        return self.merge(vertex, shapes, ins, alone)

    def concat(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        dim, pieces, stack = vertex.attrs["dim"], vertex.attrs["pieces"], vertex.attrs.get("stack")
        out: Labels = {}
        along: list[Ids] = []
        several = len(pieces) > 1
        for slot, size in pieces:
            labels = {} if slot is None else ins[slot]
            own = labels.get((dim,)) if not stack else None
            along.append(self.new(size) if own is None else own)
            if own is None:
                self.refuse(along[-1], f"{vertex.name} joins them with what cannot be cut")
            for axes, ids in labels.items():
                if not stack and axes == (dim,):
                    continue
                to: list[int | None] = [a + 1 if stack and a >= dim else a for a in range(16)]
                if not stack:
                    to[dim] = None
                if not self.pass_on(axes, ids, to, out):
                    self.fix(vertex, shapes, [{axes: ids}])
        if any(slot is None or len(ins[slot]) == 0 for slot, _ in pieces):
            for ids in out.values():
                self.refuse(ids, f"{vertex.name} joins them with what cannot be cut")
        if not stack:
            whole = np.concatenate(along)
            self.joined += [whole] if several else []
            out[dim,] = whole
        return out

    def reshape(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        before, after = (shapes[0] if shapes else None), vertex.shape
        if len(ins) != 1 or before is None or after is None:
            return self.fix(vertex, shapes, ins)
        out: Labels = {}
        for axes, ids in ins[0].items():
            for group_in, group_out in absence.matching_dims(before, after):
                here = tuple(a for a in axes if a in group_in)
                if here:
                    held = self.collapse(axes, ids, here) if here != axes else ids
                    self._view(before, after, group_in, group_out, here, held, out)
                    break
        return out

    def _view(
        self, before: Shape, after: Shape, group_in: list[int], group_out: list[int],
        axes: Axes, ids: Ids, out: Labels,
    ) -> None:  # fmt: skip
        lines = [before[a] if a in axes else 1 for a in group_in]
        spread = np.broadcast_to(ids.reshape(lines), [before[a] for a in group_in])
        view = spread.reshape([after[a] for a in group_out])
        varying = []
        for position, axis in enumerate(group_out):
            if view.shape[position] > 1 and (view != view.take([0], position)).any():
                varying.append((position, axis))
        index = tuple(
            slice(None) if any(p == q for q, _ in varying) else 0 for p in range(view.ndim)
        )
        if varying:
            self.put(out, tuple(axis for _, axis in varying), view[index])
        elif len(group_out):
            self.refuse(ids, "a view leaves them no axis of their own")

    def split(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        return dict(ins[0]) if len(ins) == 1 else self.fix(vertex, shapes, ins)

    def piece(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        dim, out = vertex.attrs["dim"], dict[Axes, Ids]()
        for axes, ids in ins[0].items():
            if dim in axes:
                inside = np.arange(vertex.attrs["start"], vertex.attrs["stop"])
                ids = ids.take(inside, axes.index(dim))
            out[axes] = ids
        return out

    def member(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        dim, out = vertex.attrs["dim"], dict[Axes, Ids]()
        for axes, ids in ins[0].items():
            rest = tuple(a - (a > dim) for a in axes if a != dim)
            if dim in axes:
                ids = ids.take(vertex.attrs["number"], axes.index(dim))
            if rest:
                self.put(out, rest, ids)
            else:
                self.fix(vertex, shapes, [{axes: np.atleast_1d(ids)}])
        return out

    def norm(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        return dict(ins[0]) if len(ins) == 1 else self.fix(vertex, shapes, ins)

    def group_norm(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        out: Labels = {}
        for axes, ids in ins[0].items() if len(ins) == 1 else ():
            if axes == (1,):
                out[axes] = ids
            else:
                self.fix(vertex, shapes, [{axes: ids}])
        return out if len(ins) == 1 else self.fix(vertex, shapes, ins)

    def halves(self, vertex: Vertex, shapes: Any, ins: Sequence[Labels]) -> Labels:
        dim, out = vertex.attrs["dim"], dict[Axes, Ids]()
        for axes, ids in ins[0].items() if len(ins) == 1 else ():
            if dim in axes:
                first, second = np.split(ids, 2, axes.index(dim))
                self.join(first, second)
                ids = first
            out[axes] = ids
        return out if len(ins) == 1 else self.fix(vertex, shapes, ins)


_RULES: dict[Any, Callable[[_Pass, Vertex, Any, Sequence[Labels]], Labels]] = {
    absence.by_axes: _Pass.by_axes,
    absence.reduce: _Pass.reduce,
    absence.mix: _Pass.mix,
    absence.contract: _Pass.contract,
    absence.add: _Pass.add,
    absence.multiply: _Pass.multiply,
    absence.concat: _Pass.concat,
    absence.reshape: _Pass.reshape,
    absence.split: _Pass.split,
    absence.unbind: _Pass.split,
    absence.piece: _Pass.piece,
    absence.member: _Pass.member,
    absence.norm: _Pass.norm,
    absence.group_norm: _Pass.group_norm,
    absence.halves: _Pass.halves,
}


def produced(vertex: Vertex) -> int | None:
    """The axis on which a vertex gives channels of its own making, that can be cut one by one."""
    if vertex.shared or vertex.attrs.get("groups", 1) > 1:
        return None
    flow = TABLE.rules[vertex.op].flow
    return _weighted(vertex) if flow in _PRODUCING or vertex.op == "embedding" else None


def _weighted(vertex: Vertex) -> int | None:
    """The output axis that a weight of two or more dimensions follows."""
    for parameter in vertex.params:
        if len(parameter.shape) > 1:
            for follow in parameter.follows:
                if follow is not None and follow[0] == "out" and not vertex.shared:
                    return follow[1]
    return None
