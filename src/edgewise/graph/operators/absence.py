"""How absence passes through one operator: what it gives, given what remains of its inputs.

Every function here takes a vertex, the shapes of its inputs and what remains of each (None =
absent) and returns a `Flow`. They are pure and know nothing of tensors. They are also monotone:
less in never gives more out, which is why removing more never raises a cost.

Examples:
    >>> half = ew.absence.Live(((1, (True, False, True, False)),))
    >>> half.shape((4, 8, 8))  # axis 1 is cut
    (4, 2, 8)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Shape, Vertex

Keep = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Live:
    """What remains of one tensor: along each axis in `keeps`, the channels marked True.

    An axis that is not listed is there in full; none listed: the whole tensor.
    """

    keeps: tuple[tuple[int, Keep], ...] = ()

    @property
    def full(self) -> bool:
        return not self.keeps

    def keep(self, axis: int) -> Keep | None:
        """The channels that remain along an axis, None if all do."""
        for a, keep in self.keeps:
            if a == axis:
                return keep
        return None

    def shape(self, shape: Shape) -> Shape:
        """The shape of what remains of a tensor of this (full) shape."""
        sizes = list(shape)
        for axis, keep in self.keeps:
            sizes[axis] = keep.count(True)
        return tuple(sizes)


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
        fill: see `wants`.
        forward: the output is the one remaining input itself, so that no operator is left.
    """

    out: State
    wants: tuple[State, ...]
    fill: float = 0.0
    forward: bool = False


FlowFunction = Callable[[Vertex, Shapes, States], Flow]


def live(keeps: Mapping[int, Sequence[bool]] | Iterable[tuple[int, Sequence[bool]]]) -> State:
    """What remains when only these channels do: nothing if an axis keeps none."""
    partial: list[tuple[int, Keep]] = []
    for axis, keep in sorted(dict(keeps).items()):
        if not any(keep):
            return None
        if not all(keep):
            partial.append((axis, keep if isinstance(keep, tuple) else tuple(map(bool, keep))))
    return Live(tuple(partial)) if partial else FULL


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


def _only(state: Live, axes: Iterable[int]) -> Live:
    """The state along these axes; the others in full."""
    if not state.keeps:
        return FULL
    wanted = set(axes)
    kept = tuple(item for item in state.keeps if item[0] in wanted)
    if len(kept) == len(state.keeps):
        return state
    return Live(kept) if kept else FULL


def by_axes(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that treats the channels of an axis apart, where attrs["axes"] says so.

    `axes[i]` is the output axis on which the channels of input axis i arrive, None if they mix.
    """
    if len(ins) != 1 or ins[0] is None or vertex.shared:
        return join(vertex, shapes, ins)
    axes = vertex.attrs["axes"]
    passing = _only(ins[0], (a for a, target in enumerate(axes) if target is not None))
    return Flow(live((axes[a], keep) for a, keep in passing.keeps), (passing,))


def reshape(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A view of the same elements under another shape (flatten, view, unflatten, squeeze).

    What remains is widened, where it must be, to whole channels of the new axes; an axis that grows
    with the batch has none.
    """
    before, after = (shapes[0] if shapes else None), vertex.shape
    if len(ins) != 1 or ins[0] is None or before is None or after is None:
        return join(vertex, shapes, ins)
    out: dict[int, Keep] = {}
    back: dict[int, Keep] = {}
    for group_in, group_out in matching_dims(before, after):
        here = [(a, keep) for a, keep in ins[0].keeps if a in group_in]
        wide = [a for a in group_out if after[a] > 1]
        if here and not set(vertex.batched).intersection(wide):
            inner, outer = _same_elements(before, after, group_in, group_out, dict(here))
            out |= outer
            back |= inner
    state, want = live(out), live(back)
    return Flow(state, (want,)) if state is not None else _gone(ins)


def _same_elements(
    before: Shape, after: Shape, group_in: list[int], group_out: list[int], keeps: dict[int, Keep]
) -> tuple[dict[int, Keep], dict[int, Keep]]:
    """The fewest whole channels of the old and of the new axes that are the same elements."""
    while True:
        found = _through_view(before, after, group_in, group_out, keeps)
        wider = _through_view(after, before, group_out, group_in, found)
        if wider == keeps:
            return keeps, found
        keeps = wider


def _through_view(
    before: Shape, after: Shape, group_in: list[int], group_out: list[int], keeps: dict[int, Keep]
) -> dict[int, Keep]:
    """The channels of the new axes that hold anything of what remains along the old ones."""
    pattern = np.ones([before[a] for a in group_in], dtype=bool)
    for position, axis in enumerate(group_in):
        if axis in keeps:
            line = np.array(keeps[axis])
            pattern &= line.reshape([-1 if i == position else 1 for i in range(len(group_in))])
    pattern = pattern.reshape([after[a] for a in group_out])
    found: dict[int, Keep] = {}
    for position, axis in enumerate(group_out):
        others = tuple(p for p in range(len(group_out)) if p != position)
        line = np.asarray(pattern.any(axis=others))
        if not line.all():
            found[axis] = tuple(line.tolist())
    return found


def matching_dims(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of dimensions of two shapes with equal numbers of elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        run_in: list[int] = []
        run_out: list[int] = []
        size_in = size_out = 1
        while not (run_in and run_out and size_in == size_out):
            if i < len(before) and (not run_in or size_in < size_out or j >= len(after)):
                run_in.append(i)
                size_in *= before[i]
                i += 1
            elif j < len(after):
                run_out.append(j)
                size_out *= after[j]
                j += 1
            else:
                break
        groups.append((run_in, run_out))
    return groups


def mix(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that mixes the channels of attrs["mixes"]: it drops the absent ones.

    Other axes pass as attrs["axes"] says. With attrs["groups"] above 1 channels mix in groups: one
    that lost all its inputs gives nothing, one that lost some reads zeros in their place.
    """
    if len(ins) != 1 or ins[0] is None or vertex.shared:
        return join(vertex, shapes, ins)
    mixes, axes = vertex.attrs["mixes"], vertex.attrs["axes"]
    want = _only(ins[0], [mixes, *(a for a, target in enumerate(axes) if target is not None)])
    keeps: dict[int, Sequence[bool]] = {axes[a]: keep for a, keep in want.keeps if a != mixes}
    mixed, groups = want.keep(mixes), vertex.attrs.get("groups", 1)
    if mixed is not None and groups > 1:
        assert vertex.shape is not None
        there = whole_groups(mixed, groups)
        keeps[mixes] = spread(there, vertex.shape[mixes])
        want = live({**dict(want.keeps), mixes: spread(there, len(mixed))}) or FULL
    return Flow(live(keeps), (want,))


def whole_groups(keep: Sequence[bool], groups: int) -> Keep:
    """For each of equal groups of channels, whether anything of it remains."""
    size = len(keep) // groups
    return tuple(any(keep[i : i + size]) for i in range(0, len(keep), size))


def spread(keep: Sequence[bool], size: int) -> Keep:
    """The groups that remain as channels, `size` in all."""
    return tuple(here for here in keep for _ in range(size // len(keep)))


def contract(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A product of tensors that sums over shared axes (matmul, einsum, attention).

    attrs["labels"] names the axes of each input: by the output axis on which their channels arrive
    (a number), by a letter that other inputs share where they are summed over, or None where
    absent channels must be read as zeros. A channel that one input lacks is dropped from all. An
    axis of fewer channels than the output's is repeated (attention heads that share their keys):
    it goes with all the channels that it serves.
    """
    if any(state is None for state in ins) or vertex.shared or not ins:
        return join(vertex, shapes, ins)
    assert vertex.shape is not None
    labels, repeats = vertex.attrs["labels"], {}
    keeps: dict[int | str, list[bool]] = {}
    for names, shape in zip(labels, shapes, strict=True):
        for name, size in zip(names, shape or (), strict=True):
            if isinstance(name, int) and size < vertex.shape[name]:
                repeats[name] = size
    for names, state in zip(labels, ins, strict=True):
        for axis, keep in state.keeps if state else ():
            name = names[axis]
            if name is not None:
                line = spread(keep, vertex.shape[name]) if isinstance(name, int) else keep
                before = keeps.get(name, [True] * len(line))
                keeps[name] = [a and b for a, b in zip(before, line, strict=True)]
    for name, size in repeats.items():
        if name in keeps:
            served = whole_groups(keeps[name], size)
            keeps[name] = list(spread(served, vertex.shape[name]))
    if not all(any(keep) for keep in keeps.values()):
        return _gone(ins)
    wants = tuple(
        _narrowed(names, shape, keeps) for names, shape in zip(labels, shapes, strict=True)
    )
    return Flow(live({a: keep for a, keep in keeps.items() if isinstance(a, int)}), wants)


def _narrowed(
    names: Sequence[int | str | None], shape: Shape | None, keeps: Mapping[int | str, list[bool]]
) -> Live:
    """What an operand of a product is read as, by the channels that remain of each label."""
    found: dict[int, Sequence[bool]] = {}
    for axis, (name, size) in enumerate(zip(names, shape or (), strict=True)):
        if name is not None and name in keeps:
            found[axis] = whole_groups(keeps[name], size)
    return live(found) or FULL


def reduce(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A mean, sum or extremum: it is taken over what remains; see `by_axes` for other axes."""
    flow = by_axes(vertex, shapes, ins)
    plain = len(ins) == 1 and ins[0] is not None and not vertex.shared
    return Flow(flow.out, tuple(ins)) if plain and flow.out is not None else flow


def halves(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A gated unit: one half of attrs["dim"] times a function of the other, channel by channel."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    keeps: dict[int, Sequence[bool]] = dict(ins[0].keeps)
    dim = vertex.attrs["dim"]
    if dim in keeps:
        half = len(keeps[dim]) // 2
        pairs = zip(keeps[dim][:half], keeps[dim][half:], strict=True)
        keeps[dim] = [a and b for a, b in pairs]
    out = live(keeps)
    if out is None:
        return _gone(ins)
    return Flow(out, (live({a: (*k, *k) if a == dim else k for a, k in keeps.items()}),))


def norm(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A norm that mixes channels: its statistics are taken over those that remain."""
    if len(ins) != 1 or ins[0] is None or vertex.shared:
        return join(vertex, shapes, ins)
    return Flow(ins[0], (ins[0],))


def group_norm(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A norm over groups of channels: the statistics of each are taken over those that remain."""
    if len(ins) != 1 or ins[0] is None or vertex.shared:
        return join(vertex, shapes, ins)
    state = _only(ins[0], [1])
    return Flow(state, (state,))


def _aligned(state: Live, shape: Shape, out: Shape) -> Live:
    """The state in the coordinates of the (broadcast) output."""
    shift = len(out) - len(shape)
    return Live(tuple((a + shift, keep) for a, keep in state.keeps)) if state.keeps else FULL


def _read_as(out: Live, shape: Shape, full: Shape) -> Live:
    """How an input of this shape is read when `out` remains of the broadcast result."""
    shift = len(full) - len(shape)
    axes = [(a - shift, keep) for a, keep in out.keeps]
    kept = tuple((a, keep) for a, keep in axes if a >= 0 and shape[a] == len(keep))
    return Live(kept) if kept else FULL


def _present(ins: States, shapes: Shapes) -> dict[int, tuple[Live, Shape]]:
    """Slot → state and shape of the inputs that are there."""
    return {
        slot: (state, shape)
        for slot, (state, shape) in enumerate(zip(ins, shapes, strict=True))
        if state is not None and shape is not None
    }


def _union(states: Sequence[Live]) -> Live:
    """The smallest state that holds all these."""
    keeps: dict[int, list[bool]] = {}
    for axis, _ in states[0].keeps:
        lines = [state.keep(axis) for state in states]
        known = [line for line in lines if line is not None]
        if len(known) == len(states):
            keeps[axis] = [any(here) for here in zip(*known, strict=True)]
    return live(keeps) or FULL


def intersection(states: Sequence[Live]) -> State:
    """What all these states hold."""
    keeps: dict[int, list[bool]] = {}
    for state in states:
        for axis, keep in state.keeps:
            before = keeps.get(axis, [True] * len(keep))
            keeps[axis] = [a and b for a, b in zip(before, keep, strict=True)]
    return live(keeps)


def add(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A sum: an absent summand contributes nothing; all absent → absent.

    attrs["signs"][i] is the factor of summand i. A sum of which one summand of factor 1 remains
    is that summand.
    """
    full = vertex.shape
    assert full is not None
    present = _present(ins, shapes)
    if not present:
        return _gone(ins)
    out = _union([_aligned(state, shape, full) for state, shape in present.values()])
    wants = tuple(
        _read_as(out, present[i][1], full) if i in present else None for i in range(len(ins))
    )
    alone = len(ins) > 1 and len(present) == 1
    forward = alone and vertex.attrs["signs"][next(iter(present))] == 1
    return Flow(out, wants, forward=forward)


def multiply(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A product: an absent factor is dropped where what remains has the output's shape.

    The rule holds channel by channel. attrs["alone"][i] says whether factor i may stand alone
    (the divisor of a quotient may not).
    """
    full = vertex.shape
    assert full is not None
    present = _present(ins, shapes)
    states = {i: _aligned(state, shape, full) for i, (state, shape) in present.items()}
    alone = vertex.attrs["alone"]
    regions = [states[i] for i, (_, shape) in present.items() if shape == full and alone[i]]
    together = intersection(list(states.values())) if len(present) == len(ins) else None
    regions += [together] if together is not None else []
    if not regions:
        return _gone(ins)
    out = _union(regions)
    wants = tuple(
        _read_as(out, present[i][1], full) if i in present else None for i in range(len(ins))
    )
    return Flow(out, wants, fill=1.0, forward=len(ins) > 1 and len(present) == 1)


def concat(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A concatenation (or stack) along attrs["dim"]: an absent piece contributes no channels.

    attrs["pieces"] lists (slot, size) in order, slot None for a constant piece; attrs["stack"]
    says that the dimension is new. Channels of other axes that only some pieces lack are filled
    with zeros.
    """
    dim, pieces, stack = vertex.attrs["dim"], vertex.attrs["pieces"], vertex.attrs.get("stack")
    present = [state for state in ins if state is not None]
    if not present:
        return _gone(ins)

    def outside(axis: int) -> int:
        return axis + 1 if stack and axis >= dim else axis

    constant = any(slot is None for slot, _ in pieces)
    across = [_only(s, (a for a, _ in s.keeps if stack or a != dim)) for s in present]
    shared = FULL if constant else _union(across)
    along: list[bool] = []
    for slot, size in pieces:
        state = FULL if slot is None else ins[slot]
        keep = None if state is None or stack else state.keep(dim)
        along.extend(keep if keep is not None else [state is not None] * size)
    wants = tuple(None if s is None else _piece_read_as(s, shared, dim, stack) for s in ins)
    out = live({dim: tuple(along)} | {outside(a): keep for a, keep in shared.keeps})
    alone = not stack and len(pieces) > 1 and len(present) == 1 and not constant
    return Flow(out, wants, forward=alone)


def _piece_read_as(state: Live, shared: Live, dim: int, stack: bool | None) -> Live:
    own = FULL if stack else _only(state, [dim])
    return own if shared is FULL else live(shared.keeps + own.keeps) or FULL


def split(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that cuts its input into a tuple along attrs["dim"]; see `piece`."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    return Flow(ins[0], (ins[0],))


def piece(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """Part attrs["start"]:attrs["stop"] of the input of a `split`."""
    if ins[0] is None:
        return _gone(ins)
    keeps = dict(ins[0].keeps)
    dim = vertex.attrs["dim"]
    if dim in keeps:
        keeps[dim] = keeps[dim][vertex.attrs["start"] : vertex.attrs["stop"]]
    out = live(keeps)
    return Flow(out, (ins[0] if out else None,))


def unbind(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """An operator that makes a tuple of attrs["dim"], whose members lose that axis."""
    if len(ins) != 1 or ins[0] is None:
        return join(vertex, shapes, ins)
    state = _only(ins[0], (a for a, _ in ins[0].keeps if a != vertex.attrs["dim"]))
    return Flow(state, (state,))


def member(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """One member of an `unbind`."""
    if ins[0] is None:
        return _gone(ins)
    dim = vertex.attrs["dim"]
    return Flow(live((a - (a > dim), keep) for a, keep in ins[0].keeps), (ins[0],))


def take(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """One member of a tuple or dict."""
    return _gone(ins) if ins[0] is None else Flow(FULL, tuple(ins))


def elements(shape: Shape | None) -> int:
    """How many elements a tensor of this shape has (0 for what is no tensor)."""
    return 0 if shape is None else math.prod(shape)
