"""What remains of tensors under all masks at once: literals in place of booleans.

Bounds of operators give literals that are true at most where a tensor, or a channel of it, is
there: what is paid for is never overstated. Whoever writes the literals down (a solver) brings
the `Logic` that joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol

Literal = frozenset[int] | None  # variables all of which hold; None: never true
Line = tuple[Literal, ...]  # a literal for every channel of an axis
TRUE: Literal = frozenset()


class Logic(Protocol):
    """Joins literals."""

    def all(self, *literals: Literal) -> Literal:
        """True where all these are."""

    def any(self, literals: Iterable[Literal]) -> Literal:
        """True where one of these is."""

    def mapped(self, line: Line, change: Callable[[Literal], Literal]) -> Line:
        """A line with every distinct literal changed once."""


class Booleans:
    """The logic of one mask, whose literals are booleans."""

    def all(self, *literals: bool) -> bool:
        return all(literals)

    any = staticmethod(any)


BOOLEANS = Booleans()


@dataclass(frozen=True)
class Remains:
    """What remains of a tensor: whether it is there, and the channels of each axis that may go.

    A channel's literal implies that the tensor is there. Axes that are not listed are there in
    full whenever the tensor is.
    """

    here: Literal
    axes: Mapping[int, Line] = field(default_factory=dict)

    @property
    def keeps(self) -> Iterable[tuple[int, Line]]:
        return self.axes.items()

    def keep(self, axis: int) -> Line | None:
        """The literals of an axis, None if its channels are there with the tensor."""
        return self.axes.get(axis)

    def line(self, axis: int, size: int) -> Line:
        """The literals of all channels of an axis."""
        return self.axes.get(axis, (self.here,) * size)

    def only(self, axes: Iterable[int]) -> Remains:
        """The same with other axes in full."""
        wanted = set(axes)
        return Remains(self.here, {a: line for a, line in self.axes.items() if a in wanted})

    def along(self, lines: Mapping[int, Line] | Iterable[tuple[int, Line]]) -> Remains:
        """The tensor with these literals, and there where this one is."""
        return Remains(self.here, dict(lines))

    def restricted(self, logic: Logic, here: Literal) -> Remains:
        """The same where `here` holds as well."""
        if here == self.here:
            return self
        axes = {
            a: logic.mapped(line, lambda one: logic.all(one, here)) for a, line in self.axes.items()
        }
        return Remains(logic.all(self.here, here), axes)

    def narrowed(self, logic: Logic, axis: int, line: Line) -> Remains:
        """The same with another line along one axis; it is there where any of that line is."""
        rest = Remains(self.here, {a: other for a, other in self.axes.items() if a != axis})
        rest = rest.restricted(logic, logic.all(self.here, logic.any(line)))
        return Remains(rest.here, {**rest.axes, axis: line})

    @property
    def literals(self) -> set[Literal]:
        return {self.here}.union(*self.axes.values())


Passed = tuple[Remains, Sequence[Remains]]  # of the output, and of the inputs as they are read
WHOLE = Remains(TRUE)


def where_all(logic: Logic, ins: Sequence[Remains]) -> Remains:
    """A tensor that is there, in full, where all of every input is."""
    return Remains(logic.all(*set().union(*(state.literals for state in ins))))


def several(logic: Logic, literals: Sequence[Literal]) -> Literal:
    """True where at least two of these are."""
    if len(literals) <= 3:
        return logic.any(logic.all(a, b) for a, b in combinations(literals, 2))
    found, before = [], literals[0]
    for literal in literals[1:]:
        found.append(logic.all(before, literal))
        before = logic.any([before, literal])
    return logic.any(found)


def whole_groups(logic: Any, line: Sequence[Any], groups: int) -> tuple[Any, ...]:
    """For each of equal groups of channels, whether anything of it remains."""
    size = len(line) // groups
    return tuple(logic.any(line[i : i + size]) for i in range(0, len(line), size))


def spread(line: Sequence[Any], size: int) -> tuple[Any, ...]:
    """The groups that remain as channels, `size` in all."""
    return tuple(here for here in line for _ in range(size // len(line)))
