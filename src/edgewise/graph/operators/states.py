"""What remains of tensors under one mask: the channels of each axis that are there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..vertices import Shape

Keep = tuple[bool, ...]
Lines = Mapping[int, Sequence[bool]] | Iterable[tuple[int, Sequence[bool]]]


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

    def only(self, axes: Iterable[int]) -> Live:
        """The same with other axes in full."""
        if not self.keeps:
            return FULL
        wanted = set(axes)
        kept = tuple(item for item in self.keeps if item[0] in wanted)
        if len(kept) == len(self.keeps):
            return self
        return Live(kept) if kept else FULL

    def along(self, keeps: Lines) -> Any:
        """The tensor of which only these channels remain, None if of some axis none does."""
        return live(keeps)

    def narrowed(self, logic: Any, axis: int, keep: Sequence[bool]) -> Any:
        """The same with other channels along one axis, None if there are none."""
        return live({**dict(self.keeps), axis: keep})


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


def live(keeps: Lines) -> State:
    """What remains when only these channels do: nothing if an axis keeps none."""
    partial: list[tuple[int, Keep]] = []
    for axis, keep in sorted(dict(keeps).items()):
        if not any(keep):
            return None
        if not all(keep):
            partial.append((axis, keep if isinstance(keep, tuple) else tuple(map(bool, keep))))
    return Live(tuple(partial)) if partial else FULL


def union(states: Sequence[Live]) -> Live:
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


def elements(shape: Shape | None) -> int:
    """How many elements a tensor of this shape has (0 for what is no tensor)."""
    return 0 if shape is None else math.prod(shape)
