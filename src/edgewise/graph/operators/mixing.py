"""Operators that mix channels into others: absent ones are dropped from the sum."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..vertices import Shape, Vertex
from .joining import Axes, Ids, Joining, Labels, weighted
from .passage import Passage, documented, gone, join, of_one
from .remains import BOOLEANS, TRUE, Line, Logic, Passed, Remains, spread, where_all, whole_groups
from .states import Flow, Live, Shapes, States, live

# -- layers with a weight ----------------------------------------------------------------------


def _couple_mix(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    if vertex.shape is None:
        return joining.fix([labels])
    mixes, groups = vertex.attrs["mixes"], vertex.attrs.get("groups", 1)
    to = [a if i != mixes else None for i, a in enumerate(vertex.attrs["axes"])]
    out: Labels = {}
    for axes, ids in labels.items():
        if axes == (mixes,) and groups == 1:
            joining.read(0, mixes, ids)
        elif axes == (mixes,):
            rows = ids.reshape(groups, -1)  # a group goes as a whole, and takes its outputs along
            joining.join(rows[:, :1], rows)
            out[axes] = np.repeat(rows[:, 0], vertex.shape[mixes] // groups)
            if (axis := weighted(vertex)) is not None:
                joining.join(joining.write(axis), out[axes])
        else:
            joining.pass_or_fix(axes, ids, to, out)
    return out


@of_one(_couple_mix, makes=True)
def mix(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """An operator that mixes the channels of attrs["mixes"]: it drops the absent ones.

    Other axes pass as attrs["axes"] says. With attrs["groups"] above 1 channels mix in groups: one
    that lost all its inputs gives nothing, one that lost some reads zeros in their place.
    """
    mixes, axes, groups = vertex.attrs["mixes"], vertex.attrs["axes"], vertex.attrs.get("groups", 1)
    want = state.only([mixes, *(a for a, target in enumerate(axes) if target is not None)])
    out = {axes[a]: keep for a, keep in want.keeps if a != mixes}
    mixed = want.keep(mixes)
    if mixed is not None and groups > 1:
        assert vertex.shape is not None
        there = whole_groups(logic, mixed, groups)
        out[mixes] = spread(there, vertex.shape[mixes])
        want = want.along({**dict(want.keeps), mixes: spread(there, len(mixed))})
    return want.along(out), want


# -- gated units -------------------------------------------------------------------------------


def _couple_halves(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    dim, out = vertex.attrs["dim"], dict(labels)
    for axes, ids in labels.items():
        if dim in axes:
            out[axes], second = np.split(ids, 2, axes.index(dim))
            joining.join(out[axes], second)
    return out


@of_one(_couple_halves, weights=False, thins=True)
def halves(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """A gated unit: one half of attrs["dim"] times a function of the other, channel by channel."""
    dim = vertex.attrs["dim"]
    line = state.keep(dim)
    if line is None:
        return state, state
    half = len(line) // 2
    pairs = zip(line[:half], line[half:], strict=True)
    both = tuple(logic.all(a, b) for a, b in pairs)
    out = state.narrowed(logic, dim, both)
    return out, None if out is None else out.narrowed(logic, dim, both + both)


# -- products of tensors -----------------------------------------------------------------------

Names = Sequence[int | str | None]


def _contract(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A product of tensors that sums over shared axes (matmul, einsum, attention).

    attrs["labels"] names the axes of each input: by the output axis on which their channels arrive
    (a number), by a letter that other inputs share where they are summed over, or None where
    absent channels must be read as zeros. A channel that one input lacks is dropped from all. An
    axis of fewer channels than the output's is repeated (attention heads that share their keys):
    it goes with all the channels that it serves. attrs["apart"] says that no channel meets another
    of its kind, so that they are no heads.
    """
    if any(state is None for state in ins) or vertex.shared or not ins:
        return join.flow(vertex, shapes, ins)
    assert vertex.shape is not None
    labels, repeats = vertex.attrs["labels"], {}
    for names, shape in zip(labels, shapes, strict=True):
        for name, size in zip(names, shape or (), strict=True):
            if isinstance(name, int) and size < vertex.shape[name]:
                repeats[name] = size
    # keeps: for each label the channels that every operand with that label holds, at the size of
    # the output's axis where the label is one (keys [2 heads] of queries [4 heads] count double),
    # and whole heads of keys where a label is repeated.
    keeps: dict[int | str, list[bool]] = {}
    for names, state in zip(labels, ins, strict=True):
        for axis, keep in state.keeps if state else ():
            name = names[axis]
            if name is not None:
                line = spread(keep, vertex.shape[name]) if isinstance(name, int) else keep
                before = keeps.get(name, [True] * len(line))
                keeps[name] = [a and b for a, b in zip(before, line, strict=True)]
    for name, size in repeats.items():
        if name in keeps:
            served = whole_groups(BOOLEANS, keeps[name], size)
            keeps[name] = list(spread(served, vertex.shape[name]))
    if not all(any(keep) for keep in keeps.values()):
        return gone(ins)
    wants = tuple(
        _operand(names, shape, keeps) for names, shape in zip(labels, shapes, strict=True)
    )
    return Flow(live({a: keep for a, keep in keeps.items() if isinstance(a, int)}), wants)


def _operand(names: Names, shape: Shape | None, keeps: Mapping[int | str, list[bool]]) -> Live:
    """What an operand of a product is read as, by the channels that remain of each label."""
    found: dict[int, Sequence[bool]] = {}
    for axis, (name, size) in enumerate(zip(names, shape or (), strict=True)):
        if name is not None and name in keeps:
            found[axis] = whole_groups(BOOLEANS, keeps[name], size)
    return live(found) or Live()


def _couple_contract(
    joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]
) -> Labels:
    if vertex.shared:
        return joining.fix(ins)
    out: Labels = {}
    summed: dict[str, list[Ids]] = {}
    for slot, (labels, names, shape) in enumerate(
        zip(ins, vertex.attrs["labels"], shapes, strict=True)
    ):
        to = [name if isinstance(name, int) else None for name in names]
        for axes, ids in labels.items():
            if len(axes) == 1 and isinstance(names[axes[0]], str):
                summed.setdefault(names[axes[0]], []).append(ids)
                joining.read(slot, axes[0], ids)
            else:
                joining.pass_or_fix(axes, _served(vertex, names, shape, axes, ids), to, out)
    for first, *others in summed.values():
        for other in others:
            joining.join(first, other)
    if len(ins) > 1 and not vertex.attrs.get("apart"):
        joining.heads += [ids for axes, ids in out.items() if len(axes) == 1]
    return out


def _served(vertex: Vertex, names: Names, shape: Shape | None, axes: Axes, ids: Ids) -> Ids:
    """The numbers of keys that serve several heads each, once for each head."""
    assert shape is not None
    for position, axis in enumerate(axes):
        name = names[axis]
        if isinstance(name, int) and vertex.shape is not None:
            ids = np.repeat(ids, vertex.shape[name] // shape[axis], axis=position)
    return ids


def _bound_contract(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if vertex.shared:
        return join.bound(logic, vertex, shapes, ins)
    assert vertex.shape is not None
    labels, lines = vertex.attrs["labels"], dict[int | str, Line]()
    for names, state, shape in zip(labels, ins, shapes, strict=True):
        for axis, line in state.axes.items():
            name = names[axis]
            if isinstance(name, int) and (shape is None or shape[axis] < vertex.shape[name]):
                whole = where_all(logic, ins)  # heads that share their keys
                return whole, (whole,) * len(ins)
            if name is not None:
                before = lines.get(name, (TRUE,) * len(line))
                lines[name] = tuple(logic.all(a, b) for a, b in zip(before, line, strict=True))
    # here: all operands are there, and something of each label; each channel of a label is there
    # where it is in every operand and so is `here`.
    there = logic.all(*(state.here for state in ins))
    here = logic.all(there, *(logic.any(line) for line in lines.values()))
    lines = {n: logic.mapped(line, lambda k: logic.all(k, here)) for n, line in lines.items()}
    wants = [
        Remains(here, {a: lines[n] for a, n in enumerate(names) if n in lines}) for names in labels
    ]
    return Remains(here, {n: line for n, line in lines.items() if isinstance(n, int)}), wants


contract = documented(Passage(_contract, _couple_contract, _bound_contract, makes=True), _contract)
