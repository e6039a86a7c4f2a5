"""How absence passes through operators, as logic: `graph/operators/absence.py` for all masks.

Each function is the counterpart of one flow function and gives literals that are true at most
where a tensor, or a channel of it, is there: what is paid for is never overstated. An operator of
another rule is taken to give its output only where nothing of its inputs is gone, which every
flow does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ...graph.graph import Shape, Vertex
from ...graph.operators import absence
from ...graph.operators.absence import FlowFunction, Shapes, matching_dims
from .rows import TRUE, Circuit, Line, Literal


@dataclass(frozen=True)
class Remains:
    """What remains of a tensor: whether it is there, and the channels of each axis that may go.

    A channel's literal implies that the tensor is there. Axes that are not listed are there in
    full whenever the tensor is.
    """

    here: Literal
    axes: Mapping[int, Line] = field(default_factory=dict)

    def line(self, axis: int, size: int) -> Line:
        """The literals of all channels of an axis."""
        return self.axes.get(axis, (self.here,) * size)

    def only(self, axes: Iterable[int]) -> Remains:
        """The same with other axes in full."""
        wanted = set(axes)
        return Remains(self.here, {a: line for a, line in self.axes.items() if a in wanted})

    @property
    def literals(self) -> set[Literal]:
        return {self.here}.union(*self.axes.values())


Passed = tuple[Remains, Sequence[Remains]]
Through = Callable[[Circuit, Vertex, Shapes, Sequence[Remains]], Passed]
WHOLE = Remains(TRUE)


def passed(
    circuit: Circuit, flow: FlowFunction, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]
) -> Passed:
    """What an operator gives, and what it reads of each input, where it gives anything."""
    if not ins:
        return WHOLE, ()
    return _THROUGH.get(flow, unknown)(circuit, vertex, shapes, ins)


def is_known(flow: FlowFunction) -> bool:
    """Whether an operator that gives anything reads each input that is there."""
    return flow in _THROUGH


def restricted(circuit: Circuit, state: Remains, here: Literal) -> Remains:
    """The state where `here` holds as well."""
    if here == state.here:
        return state
    axes = {
        a: circuit.mapped(line, lambda one: circuit.all(one, here))
        for a, line in state.axes.items()
    }
    return Remains(circuit.all(state.here, here), axes)


def narrowed(circuit: Circuit, state: Remains, axis: int, line: Line) -> Remains:
    """The state with another line along one axis; it is there where any of that line is."""
    rest = Remains(state.here, {a: other for a, other in state.axes.items() if a != axis})
    rest = restricted(circuit, rest, circuit.all(state.here, circuit.any(set(line))))
    return Remains(rest.here, {**rest.axes, axis: line})


def unknown(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    """Any operator at all: the output is whole where every input is."""
    whole = Remains(circuit.all(*set().union(*(state.literals for state in ins))))
    return whole, (whole,) * len(ins)


def _join(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    here = Remains(circuit.all(*(state.here for state in ins)))
    return here, (here,) * len(ins)


def _by_axes(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if len(ins) != 1 or vertex.shared:
        return _join(circuit, vertex, shapes, ins)
    axes = vertex.attrs["axes"]
    want = ins[0].only(a for a, target in enumerate(axes) if target is not None)
    return Remains(want.here, {axes[a]: line for a, line in want.axes.items()}), (want,)


def _reduce(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    out, wants = _by_axes(circuit, vertex, shapes, ins)
    return out, (tuple(ins) if len(ins) == 1 and not vertex.shared else wants)


def _mix(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if len(ins) != 1 or vertex.shared:
        return _join(circuit, vertex, shapes, ins)
    mixes, axes, groups = vertex.attrs["mixes"], vertex.attrs["axes"], vertex.attrs.get("groups", 1)
    want = ins[0].only([mixes, *(a for a, target in enumerate(axes) if target is not None)])
    out = {axes[a]: line for a, line in want.axes.items() if a != mixes}
    mixed = want.axes.get(mixes)
    if mixed is not None and groups > 1:
        assert vertex.shape is not None
        there = _whole_groups(circuit, mixed, groups)
        out[mixes] = _spread(there, vertex.shape[mixes])
        want = Remains(want.here, {**want.axes, mixes: _spread(there, len(mixed))})
    return Remains(want.here, out), (want,)


def _whole_groups(circuit: Circuit, line: Line, groups: int) -> Line:
    size = len(line) // groups
    return tuple(circuit.any(set(line[i : i + size])) for i in range(0, len(line), size))


def _spread(line: Line, size: int) -> Line:
    return tuple(here for here in line for _ in range(size // len(line)))


def _norm(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if len(ins) != 1 or vertex.shared:
        return _join(circuit, vertex, shapes, ins)
    return ins[0], tuple(ins)


def _group_norm(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if len(ins) != 1 or vertex.shared:
        return _join(circuit, vertex, shapes, ins)
    state = ins[0].only([1])
    return state, (state,)


def _take(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    return Remains(ins[0].here), tuple(ins)


def _split(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    return (ins[0], tuple(ins)) if len(ins) == 1 else _join(circuit, vertex, shapes, ins)


def _piece(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    dim = vertex.attrs["dim"]
    line = ins[0].axes.get(dim)
    if line is None:
        return ins[0], tuple(ins)
    part = line[vertex.attrs["start"] : vertex.attrs["stop"]]
    return narrowed(circuit, ins[0], dim, part), tuple(ins)


def _unbind(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if len(ins) != 1:
        return _join(circuit, vertex, shapes, ins)
    state = ins[0].only(a for a in ins[0].axes if a != vertex.attrs["dim"])
    return state, (state,)


def _member(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    dim = vertex.attrs["dim"]
    axes = {a - (a > dim): line for a, line in ins[0].axes.items()}
    return Remains(ins[0].here, axes), tuple(ins)


def _halves(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if len(ins) != 1:
        return _join(circuit, vertex, shapes, ins)
    dim = vertex.attrs["dim"]
    line = ins[0].axes.get(dim)
    if line is None:
        return ins[0], tuple(ins)
    half = len(line) // 2
    both = tuple(circuit.all(a, b) for a, b in zip(line[:half], line[half:], strict=True))
    out = narrowed(circuit, ins[0], dim, both)
    return out, (Remains(out.here, {**out.axes, dim: both + both}),)


def _reshape(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    before, after = shapes[0], vertex.shape
    if len(ins) != 1 or before is None or after is None:
        return _join(circuit, vertex, shapes, ins)
    out: dict[int, Line] = {}
    for group_in, group_out in matching_dims(before, after):
        here = {a: line for a, line in ins[0].axes.items() if a in group_in}
        wide = [a for a in group_out if after[a] > 1]
        if here and not set(vertex.batched).intersection(wide):
            out |= _through_view(circuit, before, after, group_in, group_out, here)
    return Remains(ins[0].here, out), tuple(ins)


def _through_view(
    circuit: Circuit, before: Shape, after: Shape, group_in: list[int], group_out: list[int],
    lines: Mapping[int, Line],
) -> dict[int, Line]:  # fmt: skip
    """The channels of the new axes, each there where any of its elements is."""
    numbers: dict[Literal, int] = {}
    pattern = np.full([before[a] for a in group_in], -1)
    table: list[Literal] = []
    for position, axis in enumerate(group_in):
        if axis not in lines:
            continue
        shape = [-1 if i == position else 1 for i in range(len(group_in))]
        own = np.array([numbers.setdefault(one, len(numbers)) for one in lines[axis]])
        table = list(numbers)
        old, new = np.broadcast_arrays(pattern, own.reshape(shape))
        pairs, inverse = np.unique(
            np.stack([old.ravel(), new.ravel()]), axis=1, return_inverse=True
        )
        merged = [
            table[b] if a < 0 else circuit.all(table[a], table[b]) for a, b in pairs.T.tolist()
        ]
        numbers = {}
        renamed = np.array([numbers.setdefault(one, len(numbers)) for one in merged])
        pattern, table = renamed[np.ravel(inverse)].reshape(old.shape), list(numbers)
    pattern = pattern.reshape([after[a] for a in group_out])
    found: dict[int, Line] = {}
    for position, axis in enumerate(group_out):
        if after[axis] > 1:
            flat = np.moveaxis(pattern, position, 0).reshape(after[axis], -1)
            rows = [tuple(np.unique(row).tolist()) for row in flat]
            either = {row: circuit.any(table[i] for i in row) for row in dict.fromkeys(rows)}
            found[axis] = tuple(either[row] for row in rows)
    return found


def _aligned(state: Remains, shape: Shape | None, out: Shape) -> Remains:
    """The state in the coordinates of the (broadcast) output; stretched axes are in full."""
    assert shape is not None
    shift = len(out) - len(shape)
    lines = {a + shift: line for a, line in state.axes.items()}
    return Remains(state.here, {a: line for a, line in lines.items() if len(line) == out[a]})


def _union(circuit: Circuit, states: Sequence[Remains], out: Sequence[int]) -> Remains:
    """What any of these states holds."""
    axes = set.intersection(*(set(state.axes) for state in states))
    if len(states) > 1:  # an axis that one of them has in full may still lack what others lack
        axes = set().union(*(state.axes for state in states))
    here = circuit.any(state.here for state in states)
    found: dict[int, Line] = {}
    for axis in sorted(axes):
        lines = [state.line(axis, out[axis]) for state in states]
        cache: dict[tuple[Literal, ...], Literal] = {}
        for column in zip(*lines, strict=True):
            if column not in cache:
                cache[column] = circuit.any(column)
        found[axis] = tuple(cache[column] for column in zip(*lines, strict=True))
    return Remains(here, found)


def _read_as(state: Remains, out: Remains, shape: Shape | None, full: Shape) -> Remains:
    """How an input is read where this remains of the result."""
    assert shape is not None
    shift = len(full) - len(shape)
    axes = {a - shift: line for a, line in out.axes.items() if a >= shift}
    return Remains(state.here, {a: line for a, line in axes.items() if shape[a] == len(line)})


def _add(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    full = vertex.shape
    assert full is not None
    states = [_aligned(state, shape, full) for state, shape in zip(ins, shapes, strict=True)]
    out = _union(circuit, states, full)
    return out, tuple(_read_as(s, out, shape, full) for s, shape in zip(ins, shapes, strict=True))


def standing_alone(vertex: Vertex, shapes: Shapes) -> list[int]:
    """The factors of a product that may remain alone."""
    alone = vertex.attrs["alone"]
    return [i for i, shape in enumerate(shapes) if shape == vertex.shape and alone[i]]


def _multiply(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    full = vertex.shape
    assert full is not None
    states = [_aligned(state, shape, full) for state, shape in zip(ins, shapes, strict=True)]
    alone = standing_alone(vertex, shapes)
    out = (
        _union(circuit, [states[i] for i in alone], full)
        if alone
        else _together(circuit, states, full)
    )
    return out, tuple(_read_as(s, out, shape, full) for s, shape in zip(ins, shapes, strict=True))


def _together(circuit: Circuit, states: Sequence[Remains], out: Sequence[int]) -> Remains:
    """What all these states hold."""
    found = Remains(circuit.all(*(state.here for state in states)))
    for axis in sorted(set().union(*(state.axes for state in states))):
        lines = [state.line(axis, out[axis]) for state in states]
        line = tuple(circuit.all(found.here, *column) for column in zip(*lines, strict=True))
        found = narrowed(circuit, found, axis, line)
    return restricted(circuit, found, found.here)


def _concat(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    dim, pieces, stack = vertex.attrs["dim"], vertex.attrs["pieces"], vertex.attrs.get("stack")
    full = vertex.shape
    assert full is not None
    here = circuit.any(state.here for state in ins)
    along: list[Literal] = []
    for slot, size in pieces:
        state = Remains(here) if slot is None else ins[slot]
        along += (state.here,) * size if stack else state.line(dim, size)
    axes: dict[int, Line] = {}
    if not any(slot is None for slot, _ in pieces):
        moved = [_outside(state, dim, stack) for state in ins]
        axes = dict(_union(circuit, moved, full).axes)
    out = Remains(here, {**axes, dim: tuple(along)} if len(along) > 1 else axes)
    return out, tuple(ins)


def _outside(state: Remains, dim: int, stack: bool | None) -> Remains:
    """A piece of a concatenation along the other axes; a stack moves those behind its own."""
    kept = state.axes if stack else state.only(a for a in state.axes if a != dim).axes
    return Remains(state.here, {a + bool(stack and a >= dim): k for a, k in kept.items()})


def _contract(circuit: Circuit, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if vertex.shared:
        return _join(circuit, vertex, shapes, ins)
    assert vertex.shape is not None
    labels, lines = vertex.attrs["labels"], dict[int | str, Line]()
    for names, state, shape in zip(labels, ins, shapes, strict=True):
        for axis, line in state.axes.items():
            name = names[axis]
            if isinstance(name, int) and (shape is None or shape[axis] < vertex.shape[name]):
                return unknown(circuit, vertex, shapes, ins)  # heads that share their keys
            if name is not None:
                before = lines.get(name, (TRUE,) * len(line))
                lines[name] = tuple(circuit.all(a, b) for a, b in zip(before, line, strict=True))
    out = Remains(circuit.all(*(state.here for state in ins)))
    here = circuit.all(out.here, *(circuit.any(set(line)) for line in lines.values()))
    lines = {n: circuit.mapped(line, lambda k: circuit.all(k, here)) for n, line in lines.items()}
    wants = [
        Remains(here, {a: lines[n] for a, n in enumerate(names) if n in lines}) for names in labels
    ]
    return Remains(here, {n: line for n, line in lines.items() if isinstance(n, int)}), wants


def several(circuit: Circuit, literals: Sequence[Literal]) -> Literal:
    """True where at least two of these are."""
    if len(literals) <= 3:
        return circuit.any(circuit.all(a, b) for a, b in combinations(literals, 2))
    found, before = [], literals[0]
    for literal in literals[1:]:
        found.append(circuit.all(before, literal))
        before = circuit.any([before, literal])
    return circuit.any(found)


_THROUGH: dict[FlowFunction, Through] = {
    absence.join: _join,
    absence.by_axes: _by_axes,
    absence.reduce: _reduce,
    absence.mix: _mix,
    absence.norm: _norm,
    absence.group_norm: _group_norm,
    absence.take: _take,
    absence.split: _split,
    absence.piece: _piece,
    absence.unbind: _unbind,
    absence.member: _member,
    absence.halves: _halves,
    absence.reshape: _reshape,
    absence.add: _add,
    absence.multiply: _multiply,
    absence.concat: _concat,
    absence.contract: _contract,
}
