"""How absence passes through one operator: what it gives, given what remains of its inputs.

Every function here takes a vertex, the shapes of its inputs and what remains of each (None =
absent) and returns a `Flow`. They are pure and know nothing of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Shape, Vertex


@dataclass(frozen=True, slots=True)
class Live:
    """What remains of one tensor: all of it, or the channels `keep` along `axis`."""

    axis: int | None = None
    keep: tuple[bool, ...] | None = None

    @property
    def full(self) -> bool:
        return self.keep is None

    def size(self, shape: Shape, axis: int) -> int:
        """The size along `axis` of what remains of a tensor of this (full) shape."""
        if self.keep is not None and self.axis == axis % len(shape):
            return sum(self.keep)
        return shape[axis]

    def shape(self, shape: Shape) -> Shape:
        """The shape of what remains of a tensor of this (full) shape."""
        return tuple(self.size(shape, axis) for axis in range(len(shape)))


FULL = Live()
State = Live | None
States = Sequence[State]
Shapes = Sequence[Shape | None]


@dataclass(frozen=True, slots=True)
class Flow:
    """What an operator gives, and the form in which it takes each input.

    Args:
        out: what remains of the output; None = absent.
        wants: for each input, the channels that the operator reads (None = not read); a wanted
            channel that the input lacks is filled with `fill`.
        forward: the output is the one remaining input itself, so that no operator is left.
    """

    out: State
    wants: tuple[State, ...]
    fill: float = 0.0
    forward: bool = False


FlowFunction = Callable[[Vertex, Shapes, States], Flow]


def live(axis: int, keep: Sequence[bool]) -> State:
    """What remains when `keep` of the channels along `axis` do (all → full, none → absent)."""
    if all(keep):
        return FULL
    return Live(axis, tuple(bool(k) for k in keep)) if any(keep) else None


def _gone(ins: States) -> Flow:
    return Flow(None, (None,) * len(ins))


def _dense(ins: States) -> Flow:
    """All inputs with their absent channels filled by zeros; the output in full."""
    return Flow(FULL, (FULL,) * len(ins))


def join(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that needs all its inputs (attention, matmul, where, …)."""
    return _gone(ins) if any(state is None for state in ins) else _dense(ins)


def start(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A model input: always there."""
    return Flow(FULL, ())


def by_axes(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that treats the channels of an axis apart, where attrs["axes"] says so.

    `axes[i]` is the output axis on which the channels of input axis i arrive, None if they mix.
    """
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    state = ins[0]
    axes = vertex.attrs["axes"]
    if state.keep is None or state.axis is None or vertex.shared:
        return _dense(ins)
    target = axes[state.axis]
    if target is None:
        return _dense(ins)
    return Flow(Live(target, state.keep), (state,))


def reshape(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A view of the same elements under another shape (flatten, view, unflatten, squeeze)."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    before, after = shapes[0], vertex.shape
    if ins[0].full or before is None or after is None:
        return _dense(ins)
    out = _through_view(before, after, ins[0])
    return _dense(ins) if out is None else Flow(out, (ins[0],))


def _through_view(before: Shape, after: Shape, state: Live) -> Live | None:
    """Where a pattern along one axis lies after a reshape; None if it is not along one axis."""
    assert state.axis is not None
    group_in, group_out = _matching_dims(before, after, state.axis)
    sizes_in = [before[i] for i in group_in]
    local = np.broadcast_to(
        np.array(state.keep).reshape([-1 if i == state.axis else 1 for i in group_in]), sizes_in
    ).reshape([after[i] for i in group_out])
    for position, axis in enumerate(group_out):
        others = tuple(i for i in range(len(group_out)) if i != position)
        line = local.any(axis=others)
        along = line.reshape([-1 if i == position else 1 for i in range(len(group_out))])
        if np.array_equal(np.broadcast_to(along, local.shape), local):
            return Live(axis, tuple(bool(k) for k in line))
    return None


def _matching_dims(before: Shape, after: Shape, axis: int) -> tuple[list[int], list[int]]:
    """The smallest runs of dimensions with equal products, of which the first contains `axis`."""
    i = j = 0
    while i < len(before):
        run_in, run_out = [i], []
        size_in, size_out = before[i], 1
        i += 1
        while size_in != size_out or (axis in run_in and not run_out):
            if size_out < size_in or not run_out:
                if j >= len(after):
                    break
                run_out.append(j)
                size_out *= after[j]
                j += 1
            else:
                run_in.append(i)
                size_in *= before[i]
                i += 1
        if axis in run_in:
            return run_in, run_out
    return list(range(len(before))), list(range(len(after)))


def mix(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that mixes the channels of attrs["mixes"]: it drops the absent ones.

    Other axes pass as attrs["axes"] says. attrs["depthwise"] = m: nothing mixes, and every input
    channel gives m output channels.
    """
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    state = ins[0]
    if state.keep is None or vertex.shared:
        return _dense(ins)
    if state.axis != vertex.attrs["mixes"]:
        return by_axes(vertex, shapes, ins)
    depthwise = vertex.attrs.get("depthwise", 0)
    if depthwise:
        keep = tuple(k for k in state.keep for _ in range(depthwise))
        return Flow(Live(state.axis, keep), (state,))
    return _dense(ins) if vertex.attrs.get("grouped") else Flow(FULL, (state,))


def norm(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A norm that mixes channels: its statistics are taken over those that remain."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    state = ins[0]
    if state.full or vertex.shared:
        return _dense(ins)
    return Flow(state, (state,))


def group_norm(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A norm over groups of channels: the statistics of each are taken over those that remain."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    state = ins[0]
    if state.axis != 1 or vertex.shared:
        return _dense(ins)
    return Flow(state, (state,))


def _aligned(state: Live, shape: Shape, out: Shape) -> Live:
    """The state in the coordinates of the (broadcast) output."""
    if state.keep is None or state.axis is None:
        return FULL
    return Live(state.axis + len(out) - len(shape), state.keep)


def _read_as(out: State, shape: Shape, full: Shape) -> State:
    """How an input of this shape is read when `out` remains of the broadcast result."""
    if out is None or out.keep is None or out.axis is None:
        return FULL
    axis = out.axis - (len(full) - len(shape))
    return FULL if axis < 0 or shape[axis] == 1 else Live(axis, out.keep)


def add(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A sum: an absent summand contributes nothing; all absent → absent.

    attrs["signs"][i] is the factor of summand i. A sum of which one summand of factor 1 remains
    is that summand.
    """
    present = [i for i, state in enumerate(ins) if state is not None]
    if not present:
        return _gone(ins)
    full = vertex.shape
    assert full is not None
    states = {i: _aligned(ins[i], shapes[i], full) for i in present}  # type: ignore[arg-type]
    axes = {state.axis for state in states.values()}
    if len(axes) > 1 or None in axes:
        out: State = FULL
    else:
        keeps = [state.keep for state in states.values() if state.keep is not None]
        out = Live(axes.pop(), tuple(map(any, zip(*keeps, strict=True))))
    wants = tuple(
        _read_as(out, shapes[i], full) if i in states else None  # type: ignore[arg-type]
        for i in range(len(ins))
    )
    alone = len(ins) > 1 and len(present) == 1 and vertex.attrs["signs"][present[0]] == 1
    return Flow(out, wants, forward=alone)


def multiply(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A product: an absent factor is dropped where what remains has the output's shape.

    The rule holds channel by channel. attrs["alone"][i] says whether factor i may stand alone
    (the divisor of a quotient may not).
    """
    full = vertex.shape
    assert full is not None
    if len(ins) == 1:
        return _multiply_one(ins, shapes, full)
    covers = [
        shape == full and alone for shape, alone in zip(shapes, vertex.attrs["alone"], strict=True)
    ]
    if any(state is None for state in ins):
        kept = [i for i, state in enumerate(ins) if state is not None]
        if len(kept) != 1 or not covers[kept[0]]:
            return _gone(ins)
        wants = tuple(ins[i] if i in kept else None for i in range(len(ins)))
        return Flow(ins[kept[0]], wants, forward=True)
    return _multiply_channels(shapes, [s for s in ins if s is not None], covers, full)


def _multiply_one(ins: States, shapes: Shapes, full: Shape) -> Flow:
    if ins[0] is None or shapes[0] is None:
        return _gone(ins)
    return Flow(_aligned(ins[0], shapes[0], full), (ins[0],))


def _multiply_channels(
    shapes: Shapes, ins: Sequence[Live], covers: Sequence[bool], full: Shape
) -> Flow:
    known = [shape for shape in shapes if shape is not None]
    states = [_aligned(s, shape, full) for s, shape in zip(ins, known, strict=True)]
    axes = {state.axis for state in states if state.axis is not None}
    if len(axes) != 1:
        return _dense(ins)
    axis = axes.pop()
    keeps = [state.keep or (True,) * full[axis] for state in states]
    keep = [
        all(here) or any(h and c for h, c in zip(here, covers, strict=True))
        for here in zip(*keeps, strict=True)
    ]
    out = live(axis, keep)
    if out is None:
        return _gone(ins)
    return Flow(out, tuple(_read_as(out, shape, full) for shape in known), fill=1.0)


def concat(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A concatenation (or stack) along attrs["dim"]: an absent piece contributes no channels.

    attrs["pieces"] lists (slot, size) in order, slot None for a constant piece; attrs["stack"]
    says that the dimension is new.
    """
    present = [state for state in ins if state is not None]
    if not present:
        return _gone(ins)
    dim, pieces = vertex.attrs["dim"], vertex.attrs["pieces"]
    shift = 1 if vertex.attrs.get("stack") else 0
    crossing = {s for s in present if not s.full and (shift or s.axis != dim)}
    if crossing:
        return _concat_across(ins, pieces, crossing, dim, shift)
    keep: list[bool] = []
    for slot, size in pieces:
        state = FULL if slot is None else ins[slot]
        keep.extend([state is not None] * size if state is None or state.keep is None else state.keep)
    alone = len(pieces) > 1 and len(present) == 1 and all(slot is not None for slot, _ in pieces)
    return Flow(live(dim, keep), tuple(ins), forward=alone and not shift)


def _concat_across(
    ins: States, pieces: Sequence[tuple[int | None, int]], crossing: set[Live], dim: int, shift: int
) -> Flow:
    """Pieces that lack channels of another axis: kept so if all agree, else filled with zeros."""
    same = len(crossing) == 1 and set(ins) == crossing
    if same and all(slot is not None for slot, _ in pieces):
        state = next(iter(crossing))
        assert state.axis is not None
        moved = state.axis + (shift if state.axis >= dim else 0)
        return Flow(Live(moved, state.keep), tuple(ins))
    keep = [there for slot, size in pieces for there in [slot is None or ins[slot] is not None] * size]
    wants = tuple(None if state is None else FULL for state in ins)
    return Flow(live(dim, keep), wants)


def split(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that cuts its input into a tuple along attrs["dim"]; see `piece`."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    return Flow(ins[0], (ins[0],))


def piece(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """Part attrs["start"]:attrs["stop"] of the input of a `split`."""
    if ins[0] is None:
        return _gone(ins)
    state = ins[0]
    if state.keep is None or state.axis != vertex.attrs["dim"]:
        return Flow(state, (state,))
    out = live(state.axis, state.keep[vertex.attrs["start"] : vertex.attrs["stop"]])
    return Flow(out, (state if out else None,))


def take(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """One member of a tuple or dict."""
    return _gone(ins) if ins[0] is None else Flow(FULL, tuple(ins))


def elements(shape: Shape | None) -> int:
    """How many elements a tensor of this shape has (0 for what is no tensor)."""
    return 0 if shape is None else math.prod(shape)
