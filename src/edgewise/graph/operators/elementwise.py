"""Operators that treat channels apart, and norms, which count over those that remain."""

from typing import Any

from ..vertices import Vertex
from .joining import Joining, Labels
from .passage import of_one
from .states import Shapes


def _couple_by_axes(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    out: Labels = {}
    for axes, ids in labels.items():
        joining.pass_or_fix(axes, ids, vertex.attrs["axes"], out)
    return out


@of_one(_couple_by_axes)
def by_axes(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """An operator that treats the channels of an axis apart, where attrs["axes"] says so.

    `axes[i]` is the output axis on which the channels of input axis i arrive, None if they mix.
    """
    axes = vertex.attrs["axes"]
    want = state.only([a for a, target in enumerate(axes) if target is not None])
    return want.along({axes[a]: keep for a, keep in want.keeps}), want


def _couple_reduce(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    out: Labels = {}
    for axes, ids in labels.items():
        joining.pass_on(axes, ids, vertex.attrs["axes"], out)
    return out


@of_one(_couple_reduce)
def reduce(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """A mean, sum or extremum: it is taken over what remains; see `by_axes` for other axes."""
    axes = vertex.attrs["axes"]
    return state.along((axes[a], keep) for a, keep in state.keeps if axes[a] is not None), state


def couple_all(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    """Every channel stays where it is."""
    return dict(labels)


@of_one(couple_all)
def norm(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """A norm that mixes channels: its statistics are taken over those that remain."""
    return state, state


def _couple_group_norm(joining: Joining, vertex: Vertex, shapes: Shapes, labels: Labels) -> Labels:
    joining.fix([{axes: ids for axes, ids in labels.items() if axes != (1,)}])
    return {axes: ids for axes, ids in labels.items() if axes == (1,)}


@of_one(_couple_group_norm)
def group_norm(logic: Any, vertex: Vertex, shapes: Shapes, state: Any) -> tuple[Any, Any]:
    """A norm over groups of channels: the statistics of each are taken over those that remain."""
    state = state.only([1])
    return state, state
