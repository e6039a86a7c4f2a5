"""Sums, products and concatenations: where absence ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import Shape, Vertex
from .joining import Axes, Ids, Joining, Labels
from .passage import Passage, documented, gone
from .remains import Line, Literal, Logic, Passed, Remains
from .states import FULL, Flow, Live, Shapes, States, intersection, live, union

# -- operands element by element ---------------------------------------------------------------


def _add(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A sum: an absent summand contributes nothing; all absent → absent.

    attrs["signs"][i] is the factor of summand i. A sum of which one summand of factor 1 remains
    is that summand.
    """
    full = vertex.shape
    assert full is not None
    present = _present(ins, shapes)
    if not present:
        return gone(ins)
    out = union([_aligned(state, shape, full) for state, shape in present.values()])
    alone = len(ins) > 1 and len(present) == 1
    forward = alone and vertex.attrs["signs"][next(iter(present))] == 1
    return Flow(out, _operands(out, present, len(ins), full), forward=forward)


def _multiply(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A product: an absent factor is dropped where what remains has the output's shape.

    The rule holds channel by channel. attrs["alone"][i] says whether factor i may stand alone
    (the divisor of a quotient may not).
    """
    full = vertex.shape
    assert full is not None
    present = _present(ins, shapes)
    states = {i: _aligned(state, shape, full) for i, (state, shape) in present.items()}
    regions = [states[i] for i in _standing_alone(vertex, shapes) if i in present]
    together = intersection(list(states.values())) if len(present) == len(ins) else None
    regions += [together] if together is not None else []
    if not regions:
        return gone(ins)
    out = union(regions)
    forward = len(ins) > 1 and len(present) == 1
    return Flow(out, _operands(out, present, len(ins), full), fill=1.0, forward=forward)


Present = dict[int, tuple[Live, Shape]]  # by slot, the inputs that are there


def _present(ins: States, shapes: Shapes) -> Present:
    return {
        slot: (state, shape)
        for slot, (state, shape) in enumerate(zip(ins, shapes, strict=True))
        if state is not None and shape is not None
    }


def _standing_alone(vertex: Vertex, shapes: Shapes) -> list[int]:
    """The factors of a product that may remain alone."""
    alone = vertex.attrs["alone"]
    return [i for i, shape in enumerate(shapes) if shape == vertex.shape and alone[i]]


def _aligned(state: Live, shape: Shape, out: Shape) -> Live:
    """The state in the coordinates of the (broadcast) output."""
    shift = len(out) - len(shape)
    return Live(tuple((a + shift, keep) for a, keep in state.keeps)) if state.keeps else FULL


def _operands(out: Live, present: Present, count: int, full: Shape) -> tuple[Live | None, ...]:
    """How each input is read when `out` remains of the broadcast result."""
    return tuple(_read_as(out, present[i][1], full) if i in present else None for i in range(count))


def _read_as(out: Live, shape: Shape, full: Shape) -> Live:
    shift = len(full) - len(shape)
    axes = [(a - shift, keep) for a, keep in out.keeps]
    kept = tuple((a, keep) for a, keep in axes if a >= 0 and shape[a] == len(keep))
    return Live(kept) if kept else FULL


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
    out = _either(logic, _all_aligned(vertex, shapes, ins), vertex.shape or ())
    return out, _all_read_as(vertex, shapes, ins, out)


def _bound_multiply(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    full, states = vertex.shape or (), _all_aligned(vertex, shapes, ins)
    alone = [states[i] for i in _standing_alone(vertex, shapes)]
    out = _either(logic, alone, full) if alone else _together(logic, states, full)
    return out, _all_read_as(vertex, shapes, ins, out)


def _all_aligned(vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> list[Remains]:
    """States in the coordinates of the (broadcast) output; stretched axes are in full."""
    full, found = vertex.shape or (), []
    for state, shape in zip(ins, shapes, strict=True):
        shift = len(full) - len(shape or ())
        lines = ((a + shift, line) for a, line in state.keeps)
        found.append(state.along((a, line) for a, line in lines if len(line) == full[a]))
    return found


def _all_read_as(
    vertex: Vertex, shapes: Shapes, ins: Sequence[Remains], out: Remains
) -> list[Remains]:
    """How inputs are read where this remains of the result."""
    found = []
    for state, shape in zip(ins, shapes, strict=True):
        shift = len(vertex.shape or ()) - len(shape or ())
        lines = [(a - shift, line) for a, line in out.keeps if a >= shift]
        found.append(state.along((a, k) for a, k in lines if shape and shape[a] == len(k)))
    return found


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
