"""Recurrent layers and cells: one coupled set of hidden units, over all gates and layers.

What a layer gives has the units along its last axis, once for each direction. Of a vertex of
several results they are axis 0; where an LSTM projects its state, its cells are axis 1.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils import _pytree as pytree

from ..vertices import Follow, Vertex
from .calls import Call, Constant, Follows
from .joining import Joining, Labels
from .passage import Passage, documented, join, of_one
from .remains import TRUE, Line, Logic, Passed, Remains
from .states import FULL, Flow, Live, Shapes, States, intersection, live


def recurrent_read(call: Call) -> dict[str, Any]:
    """The axis that is mixed, that of the units, and how many there are; none of a function."""
    axis, last = len(call.out or (0,)) - 1, call.ndim - 1
    return {"mixes": last if _units(call) else None, "axis": axis, "units": _units(call)}


def _units(call: Call) -> list[int]:
    module: Any = call.module
    states = pytree.tree_leaves(call.args.get("hx"))
    projected = int(getattr(module, "proj_size", 0))
    if module is None or (projected and any(isinstance(s, Constant) for s in states)):
        return []
    return [projected, module.hidden_size] if projected else [module.hidden_size]


def recurrent_follows(call: Call) -> Follows:
    """Rows of every gate follow the units, and so do the columns that read them."""
    if not _units(call):
        return {}
    assert call.module is not None
    axis = len(call.out or (0,)) - 1
    units: Follow = ("out", axis)
    cells: Follow = ("out", axis + len(_units(call)) - 1)
    found: dict[str, tuple[Follow, ...]] = {"hx": (*(None,) * (call.ndim - 1), units)}
    for name, _ in call.module.named_parameters():
        enters = re.fullmatch("weight_ih(_l0)?(_reverse)?", name)
        reads: Follow = ("in", call.ndim - 1) if enters else units
        found[name] = (units, cells) if name.startswith("weight_hr") else (cells, reads)
    return found


def _flow(vertex: Vertex, shapes: Shapes, ins: States) -> Flow:
    """A recurrent layer or cell: it mixes channels into units, of which each has its own state.

    attrs["mixes"] is the axis of the channels, attrs["axis"] that of the units, attrs["units"] how
    many there are, with the cells before a projection. A unit whose first state is absent is.
    """
    if vertex.shared or not vertex.attrs["units"] or any(state is None for state in ins):
        return join.flow(vertex, shapes, ins)
    given = [state for state in ins if state is not None]
    lines = [
        live({_axis(vertex, shape): keep})
        for state, shape in zip(given[1:], shapes[1:], strict=True)
        if shape is not None and (keep := state.keep(len(shape) - 1)) is not None
    ]
    out = intersection([line for line in lines if line is not None])
    if out is None or None in lines:
        return Flow(None, (None,) * len(ins))
    wants = [given[0].only([vertex.attrs["mixes"]])]
    for shape in shapes[1:]:
        keep = out.keep(_axis(vertex, shape)) if shape is not None else None
        wants.append(FULL if keep is None or shape is None else Live(((len(shape) - 1, keep),)))
    return Flow(out, tuple(wants))


def _axis(vertex: Vertex, shape: Any) -> int:
    """The axis of the units whose first state has this shape."""
    return int(vertex.attrs["axis"] + vertex.attrs["units"].index(shape[-1]))


def _couple(joining: Joining, vertex: Vertex, shapes: Shapes, ins: Sequence[Labels]) -> Labels:
    if vertex.shared or not vertex.attrs["units"]:
        return joining.fix(ins)
    axis = vertex.attrs["axis"]
    out: Labels = {(axis + i,): joining.write(axis + i) for i in range(len(vertex.attrs["units"]))}
    for axes in list(out)[1:]:
        joining.refuse(out[axes], "cells must outnumber what torch projects them to")
    for slot, (labels, shape) in enumerate(zip(ins, shapes, strict=True)):
        last = (len(shape or ()) - 1,)
        joining.fix([{axes: ids for axes, ids in labels.items() if axes != last}])
        if last in labels and slot == 0:
            joining.read(slot, *last, labels[last])
        elif last in labels:
            joining.join(out[_axis(vertex, shape),], labels[last])
    return out


def _bound(logic: Logic, vertex: Vertex, shapes: Shapes, ins: Sequence[Remains]) -> Passed:
    if vertex.shared or not vertex.attrs["units"]:
        return join.bound(logic, vertex, shapes, ins)
    lines: dict[int, Line] = {}
    for given, shape in zip(ins[1:], shapes[1:], strict=True):
        if shape is not None and (line := given.keep(len(shape) - 1)) is not None:
            before = lines.get(axis := _axis(vertex, shape), (TRUE,) * len(line))
            lines[axis] = tuple(logic.all(a, b) for a, b in zip(before, line, strict=True))
    there = (state.here for state in ins)
    here = logic.all(*there, *(logic.any(line) for line in lines.values()))
    out = Remains(TRUE, lines).restricted(logic, here)
    wants = [ins[0].only([vertex.attrs["mixes"]]).restricted(logic, here)]
    for shape in shapes[1:]:
        line = None if shape is None else out.keep(_axis(vertex, shape))
        last = len(shape or ()) - 1
        wants.append(Remains(out.here, {} if line is None else {last: line}))
    return out, wants


recurrent = documented(Passage(_flow, _couple, _bound, makes=True), _flow)


def _couple_state(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    if vertex.shape is None or not labels:
        return dict(labels)
    ids = labels[vertex.attrs["kind"],]
    last = len(vertex.shape) - 1
    return {(last,): np.tile(ids, vertex.shape[last] // len(ids))}


@of_one(_couple_state, weights=False)
def state(logic: Any, vertex: Vertex, shapes: Shapes, given: Any) -> tuple[Any, Any]:
    """A result of a recurrent layer, or several of them; attrs["kind"] is the axis of its units."""
    if vertex.shape is None:
        return given, given
    line, last = given.keep(vertex.attrs["kind"]), len(vertex.shape) - 1
    there = {} if line is None else {last: tuple(line) * (vertex.shape[last] // len(line))}
    return given.along(there), given
