"""Sums, products and concatenations: where absence ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..vertices import Shape, Vertex
from .joining import Axes, Ids, Joining, Labels
from .passage import Passage, documented, gone
from .remains import Line, Literal, Logic, Passed, Remains
from .states import FULL, Flow, Live, Shapes, State, States, intersection, live, union

# -- operands element by element ---------------------------------------------------------------


def _add(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A sum: an absent summand contributes nothing; all absent → absent.

    attrs["signs"][i] is the factor of summand i. A sum of which one summand of factor 1 remains
    is that summand.
    """
    out, wants = _elementwise(vertex, shapes, ins, lambda s: union([*s.values()]) if s else None)
    left = [slot for slot, want in enumerate(wants) if want is not None]
    alone = len(ins) > 1 and len(left) == 1
    return Flow(out, wants, forward=alone and vertex.attrs["signs"][left[0]] == 1)


def _multiply(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A product: an absent factor is dropped where what remains has the output's shape.

    The rule holds channel by channel. attrs["alone"][i] says whether factor i may stand alone
    (the divisor of a quotient may not).
    """

    def region(states: Mapping[int, Live]) -> State:
        together = intersection([*states.values()]) if len(states) == len(ins) else None
        alone = [states[i] for i in _standing_alone(vertex, shapes) if i in states]
        regions = alone if together is None else [*alone, together]
        return union(regions) if regions else None

    out, wants = _elementwise(vertex, shapes, ins, region)
    forward = len(ins) > 1 and sum(want is not None for want in wants) == 1
    return Flow(out, wants, fill=1.0, forward=forward)


def _standing_alone(vertex: Vertex, shapes: Shapes) -> list[int]:
    """The factors of a product that may remain alone."""
    alone = vertex.attrs["alone"]
    return [i for i, shape in enumerate(shapes) if shape == vertex.shape and alone[i]]


def _elementwise(
    vertex: Vertex, shapes: Shapes, ins: Sequence[Any], region: Callable[[dict[int, Any]], Any]
) -> tuple[Any, tuple[Any, ...]]:
    """What remains of a broadcast result, and how inputs are read.

    `region` says it of what remains of the inputs that are there, by slot, in the result's axes.
    """
    full = vertex.shape
    assert full is not None
    there = {
        slot: (state, shape)
        for slot, (state, shape) in enumerate(zip(ins, shapes, strict=True))
        if state is not None and shape is not None
    }
    out = region({slot: _aligned(state, shape, full) for slot, (state, shape) in there.items()})
    if out is None:
        return None, (None,) * len(ins)
    read = {slot: _read_as(state, out, shape, full) for slot, (state, shape) in there.items()}
    return out, tuple(read.get(slot) for slot in range(len(ins)))


def _aligned(state: Any, shape: Shape, full: Shape) -> Any:
    """The state in the coordinates of the (broadcast) output; stretched axes are in full."""
    if shape == full:
        return state
    lines = [(a + len(full) - len(shape), line) for a, line in state.keeps]
    return state.along([(a, line) for a, line in lines if len(line) == full[a]])


def _read_as(state: Any, out: Any, shape: Shape, full: Shape) -> Any:
    """How an input is read when `out` remains of the result."""
    lines = [(a - len(full) + len(shape), line) for a, line in out.keeps]
    return state.along([(a, line) for a, line in lines if a >= 0 and shape[a] == len(line)])


def _couple_add(joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]) -> Labels:
    return _merged(joining, vertex, shapes, ins, range(len(ins)), summed=True)


def _couple_multiply(
    joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]
) -> Labels:
    return _merged(joining, vertex, shapes, ins, _standing_alone(vertex, shapes))


def _merged(
    joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels],
    alone: Sequence[int], summed: bool = False,
) -> Labels:  # fmt: skip
    """Operands element by element; one without numbers that may stand alone fixes the rest."""
    assert vertex.shape is not None
    full, out = vertex.shape, dict[Axes, Ids]()
    held: set[int] = set()
    # to[a]: the output axis on which channels of axis a arrive, None where they are stretched.
    # Numbers that arrive where another operand holds some are put, and so joined, element by
    # element; those that a sum joins are the channels of a residual stream.
    for labels, shape in zip(ins, shapes, strict=True):
        assert shape is not None
        shift = len(full) - len(shape)
        to = [a + shift if size == full[a + shift] else None for a, size in enumerate(shape)]
        for axes, ids in labels.items():
            up = [a for axis in axes if (a := to[axis]) is not None]
            known = any(np.array_equal(ids, theirs) for theirs in out.values())
            if summed and held.intersection(up) and not known:
                joining.joined.append(ids)
            held.update(up)
            joining.pass_or_fix(axes, ids, to, out)
    for slot in alone:
        shape = shapes[slot] or ()
        shift = len(full) - len(shape)
        mine = {a + shift for axes in ins[slot] for a in axes}
        for axes in [o for o in out if not set(o) & mine]:
            if all(a >= shift and shape[a - shift] == full[a] for a in axes):
                reason = f"{vertex.name} ({vertex.op}) adds what cannot be cut"
                joining.refuse(out[axes], reason)
    return out


def _bound_add(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    full = vertex.shape or ()
    return _elementwise(vertex, shapes, ins, lambda s: _either(logic, [*s.values()], full))


def _bound_multiply(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    full, alone = vertex.shape or (), _standing_alone(vertex, shapes)

    def region(states: Mapping[int, Remains]) -> Remains:
        if alone:
            return _either(logic, [states[i] for i in alone], full)
        return _together(logic, [*states.values()], full)

    return _elementwise(vertex, shapes, ins, region)


def _either(logic: Logic, states: Sequence[Remains], out: Sequence[int]) -> Remains:
    """What any of these states holds: an axis that one has in full may lack what others lack."""
    here = logic.any(state.here for state in states)
    found: dict[int, Line] = {}
    for axis in sorted({axis for state in states for axis in state.axes}):
        columns = list(zip(*(state.line(axis, out[axis]) for state in states), strict=True))
        cache = {column: logic.any(column) for column in dict.fromkeys(columns)}
        found[axis] = tuple(cache[column] for column in columns)
    return Remains(here, found)


def _together(logic: Logic, states: Sequence[Remains], out: Sequence[int]) -> Remains:
    """What all these states hold."""
    found = Remains(logic.all(*(state.here for state in states)))
    for axis in sorted({axis for state in states for axis in state.axes}):
        lines = [state.line(axis, out[axis]) for state in states]
        line = tuple(logic.all(found.here, *column) for column in zip(*lines, strict=True))
        found = found.narrowed(logic, axis, line)
    return found.restricted(logic, found.here)


add = documented(Passage(_add, _couple_add, _bound_add), _add)
multiply = documented(Passage(_multiply, _couple_multiply, _bound_multiply), _multiply)


# -- operands one after another ----------------------------------------------------------------


def _concat(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A concatenation (or stack) along attrs["dim"]: an absent piece contributes no channels.

    attrs["pieces"] lists (slot, size) in order, slot None for a constant piece; attrs["stack"]
    says that the dimension is new. Channels of other axes that only some pieces lack are filled
    with zeros.
    """
    dim, pieces, stack = vertex.attrs["dim"], vertex.attrs["pieces"], vertex.attrs.get("stack")
    present = [state for state in ins if state is not None]
    if not present:
        return gone(ins)
    # Along dim, the pieces' channels one after another (of a stack, one for each piece); along
    # every other axis, in the input's count of axes, what any piece has: all of it if one piece
    # is a constant. A stack moves the axes from dim on by one.
    constant = any(slot is None for slot, _ in pieces)
    across = [s.only(a for a, _ in s.keeps if stack or a != dim) for s in present]
    shared = FULL if constant else union(across)
    along: list[bool] = []
    for slot, size in pieces:
        state = FULL if slot is None else ins[slot]
        keep = None if state is None or stack else state.keep(dim)
        along.extend(keep if keep is not None else [state is not None] * size)
    wants = tuple(None if s is None else _piece_read_as(s, shared, dim, stack) for s in ins)
    out = live({dim: tuple(along)} | {a + bool(stack and a >= dim): k for a, k in shared.keeps})
    alone = not stack and len(pieces) > 1 and len(present) == 1 and not constant
    return Flow(out, wants, forward=alone)


def _piece_read_as(state: Live, shared: Live, dim: int, stack: bool | None) -> Live:
    own = FULL if stack else state.only([dim])
    return own if shared is FULL else live(shared.keeps + own.keeps) or FULL


def _couple_concat(
    joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]
) -> Labels:
    dim, pieces, stack = vertex.attrs["dim"], vertex.attrs["pieces"], vertex.attrs.get("stack")
    stuck = f"{vertex.name} joins them with what cannot be cut"
    out: Labels = {}
    along: list[Ids] = []
    # Along dim each piece keeps numbers of its own, or gets some that are refused; numbers of
    # other axes are joined across the pieces, and need one in every piece.
    for slot, size in pieces:
        labels = {} if slot is None else ins[slot]
        own = labels.get((dim,)) if not stack else None
        along.append(joining.new(size) if own is None else own)
        if own is None:
            joining.refuse(along[-1], stuck)
        to: list[int | None] = [a + bool(stack and a >= dim) for a in range(16)]
        if not stack:
            to[dim] = None
        for axes, ids in labels.items():
            if stack or axes != (dim,):
                joining.pass_or_fix(axes, ids, to, out)
    if any(slot is None or len(ins[slot]) == 0 for slot, _ in pieces):
        for ids in out.values():
            joining.refuse(ids, stuck)
    if not stack:
        out[dim,] = np.concatenate(along)
        joining.joined += [out[dim,]] if len(pieces) > 1 else []
    return out


def _bound_concat(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    dim, pieces, stack = vertex.attrs["dim"], vertex.attrs["pieces"], vertex.attrs.get("stack")
    here = logic.any(state.here for state in ins)
    along: list[Literal] = []
    for slot, size in pieces:
        state = Remains(here) if slot is None else ins[slot]
        along += (state.here,) * size if stack else state.line(dim, size)
    axes: dict[int, Line] = {}
    if not any(slot is None for slot, _ in pieces):
        across = [s if stack else s.only(a for a in s.axes if a != dim) for s in ins]
        moved = [s.along((a + bool(stack and a >= dim), k) for a, k in s.keeps) for s in across]
        axes = dict(_either(logic, moved, vertex.shape or ()).axes)
    out = Remains(here, {**axes, dim: tuple(along)} if len(along) > 1 else axes)
    return out, tuple(ins)


concat = documented(Passage(_concat, _couple_concat, _bound_concat, parts=True), _concat)
