"""Views of the same elements: reshapes, and the members of tuples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..vertices import Shape, Vertex
from .elementwise import couple_all
from .joining import Axes, Ids, Joining, Labels
from .passage import Passage, documented, gone, join, of_one
from .remains import Line, Literal, Logic, Passed, Remains
from .states import Flow, Keep, Shapes, States, live

# -- other shapes ------------------------------------------------------------------------------


def _reshape(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A view of the same elements under another shape (flatten, view, unflatten, squeeze).

    What remains is widened, where it must be, to whole channels of the new axes; an axis that grows
    with the batch has none.
    """
    before, after = (shapes[0] if shapes else None), vertex.shape
    if len(ins) != 1 or ins[0] is None or before is None or after is None:
        return join.flow(vertex, shapes, ins)
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
    return Flow(state, (want,)) if state is not None else gone(ins)


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
    # pattern: the elements that remain, first with the old axes group_in (there where every axis
    # keeps the channel), then, the same elements in the same order, with the new axes group_out.
    # A channel of a new axis is there if any element is, over all others.
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


def _couple_reshape(
    joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]
) -> Labels:
    before, after = (shapes[0] if shapes else None), vertex.shape
    if len(ins) != 1 or vertex.shared or before is None or after is None:
        return joining.fix(ins)
    out: Labels = {}
    for axes, ids in ins[0].items():
        for group_in, group_out in matching_dims(before, after):
            here = tuple(a for a in axes if a in group_in)
            if here:
                held = joining.collapse(axes, ids, here) if here != axes else ids
                lines = [before[a] if a in here else 1 for a in group_in]
                wide = np.broadcast_to(held.reshape(lines), [before[a] for a in group_in])
                view = wide.reshape([after[a] for a in group_out])
                _put_view(joining, view, group_out, held, out)
                break
    return out


def _put_view(joining: Joining, view: Ids, group_out: list[int], ids: Ids, out: Labels) -> None:
    """Numbers by the new axes: those along which they vary."""
    varying = [
        p for p in range(view.ndim) if view.shape[p] > 1 and (view != view.take([0], p)).any()
    ]
    index = tuple(slice(None) if p in varying else 0 for p in range(view.ndim))
    if varying:
        joining.put(out, tuple(group_out[p] for p in varying), view[index])
    elif len(group_out):
        joining.refuse(ids, "a view leaves them no axis of their own")


def _bound_reshape(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    before, after = shapes[0], vertex.shape
    if len(ins) != 1 or before is None or after is None:
        return join.bound(logic, vertex, shapes, ins)
    out: dict[int, Line] = {}
    for group_in, group_out in matching_dims(before, after):
        here = {a: line for a, line in ins[0].axes.items() if a in group_in}
        wide = [a for a in group_out if after[a] > 1]
        if here and not set(vertex.batched).intersection(wide):
            out |= _lines_through_view(logic, before, after, group_in, group_out, here)
    return ins[0].along(out), tuple(ins)


def _lines_through_view(
    logic: Logic, before: Shape, after: Shape, group_in: list[int], group_out: list[int],
    lines: Mapping[int, Line],
) -> dict[int, Line]:  # fmt: skip
    """The channels of the new axes, each there where any of its elements is."""
    # pattern: for every element, with the old axes group_in, the place in `table` of the literal
    # that it remains (-1: none yet): that of its channel along the first axis, joined with that
    # along the second, and so on, each pair once; then the same with the new axes group_out.
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
        merged = [table[b] if a < 0 else logic.all(table[a], table[b]) for a, b in pairs.T.tolist()]
        numbers = {}
        renamed = np.array([numbers.setdefault(one, len(numbers)) for one in merged])
        pattern, table = renamed[np.ravel(inverse)].reshape(old.shape), list(numbers)
    pattern = pattern.reshape([after[a] for a in group_out])
    found: dict[int, Line] = {}
    for position, axis in enumerate(group_out):
        if after[axis] > 1:
            flat = np.moveaxis(pattern, position, 0).reshape(after[axis], -1)
            rows = [tuple(np.unique(row).tolist()) for row in flat]
            either = {row: logic.any(table[i] for i in row) for row in dict.fromkeys(rows)}
            found[axis] = tuple(either[row] for row in rows)
    return found


reshape = documented(Passage(_reshape, _couple_reshape, _bound_reshape), _reshape)


# -- tuples and their members ------------------------------------------------------------------


@of_one(couple_all, weights=False)
def split(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """An operator that cuts its input into a tuple along attrs["dim"]; see `piece`."""
    return state, state


def _couple_piece(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    dim, out = vertex.attrs["dim"], dict(labels)
    for axes in labels:
        if dim in axes:
            inside = np.arange(vertex.attrs["start"], vertex.attrs["stop"])
            out[axes] = out[axes].take(inside, axes.index(dim))
    return out


@of_one(_couple_piece, weights=False, thins=True)
def piece(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """Part attrs["start"]:attrs["stop"] of the input of a `split`."""
    dim = vertex.attrs["dim"]
    line = state.keep(dim)
    if line is None:
        return state, state
    inside = line[vertex.attrs["start"] : vertex.attrs["stop"]]
    return state.narrowed(logic, dim, inside), state


@of_one(couple_all, weights=False)
def unbind(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """An operator that makes a tuple of attrs["dim"], whose members lose that axis."""
    state = state.only(a for a, _ in state.keeps if a != vertex.attrs["dim"])
    return state, state


def _couple_member(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    dim, out = vertex.attrs["dim"], dict[Axes, Ids]()
    for axes, ids in labels.items():
        rest = tuple(a - (a > dim) for a in axes if a != dim)
        if dim in axes:
            ids = ids.take(vertex.attrs["number"], axes.index(dim))
        if rest:
            joining.put(out, rest, ids)
        else:
            joining.fix([{axes: np.atleast_1d(ids)}])
    return out


@of_one(_couple_member, weights=False)
def member(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """One member of an `unbind`."""
    dim = vertex.attrs["dim"]
    return state.along((a - (a > dim), keep) for a, keep in state.keeps), state


def _couple_take(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    return joining.fix([labels])


@of_one(_couple_take, weights=False)
def take(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """One member of a tuple or dict."""
    return state.along(()), state
