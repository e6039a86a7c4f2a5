"""Linear rows for a solver, and logic written as such rows.

A literal is a conjunction of variables in [0, 1]: the empty one is always true, None is never
true. Variables that stand for a disjunction are made when one is asked for. Conjunctions and
disjunctions are bounded from one side only, which is why they need not be integer: where all that
they are made of is 0 or 1, the bound is 0 or 1 as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Literal = frozenset[int] | None
Line = tuple[Literal, ...]  # a literal for every channel of an axis
TRUE: Literal = frozenset()
_LONGEST = 6  # conjunction that is written out


@dataclass
class Rows:
    """Variables and rows Σ coefficient · variable ≥ bound, as they are added."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    places: list[tuple[int, int, float]] = field(default_factory=list)

    def copy(self) -> Rows:
        """The same rows, to which others can be added."""
        return Rows(*(list(getattr(self, f.name)) for f in fields(self)))

    def variable(self, *, integer: bool = False, least: float = 0.0, most: float = 1.0) -> int:
        """The index of a new variable."""
        self.lower.append(least)
        self.upper.append(most)
        self.whole.append(int(integer))
        return len(self.lower) - 1

    def at_least(self, terms: Mapping[int, float], bound: float) -> None:
        """Add the row Σ terms[variable] · variable ≥ bound."""
        row = len(self.bounds)
        self.places += [(row, variable, value) for variable, value in terms.items()]
        self.bounds.append(bound)

    def at_most(self, terms: Mapping[int, float], bound: float) -> None:
        """Add the row Σ terms[variable] · variable ≤ bound."""
        self.at_least({variable: -value for variable, value in terms.items()}, -bound)

    @property
    def matrix(self) -> Any:
        """[n_rows, n_variables], sparse."""
        rows, columns, values = zip(*self.places, strict=True) if self.places else ((), (), ())
        size = (len(self.bounds), len(self.lower))
        return csr_array((np.array(values, float), (rows, columns)), shape=size)

    def vector(self, terms: Mapping[int, float]) -> NDArray[np.float64]:
        """[n_variables] the coefficients."""
        found = np.zeros(len(self.lower))
        found[list(terms)] = list(terms.values())
        return found


class Circuit:
    """Conjunctions and disjunctions as variables of some rows.

    Args:
        rows: where they are written.
        upper: whether the variables are at most what they stand for, instead of at least.

    Attributes:
        conjunctions: for sets of variables, the one that stands for all of them.
    """

    def __init__(self, rows: Rows, *, upper: bool = False) -> None:
        self.rows, self.upper = rows, upper
        self._parts: dict[int, tuple[frozenset[int], ...]] = {}
        self._either: dict[frozenset[frozenset[int]], Literal] = {}
        self.conjunctions: dict[frozenset[int], int] = {}
        self._known: dict[frozenset[int], frozenset[int]] = {}

    def all(self, *literals: Literal) -> Literal:
        """True where all these are."""
        merged: frozenset[int] = frozenset()
        for literal in literals:
            if literal is None:
                return None
            merged |= literal
        found = self._known.get(merged)
        if found is None:
            found = self._known[merged] = self._short(self._without_implied(merged))
        return found

    def _without_implied(self, literal: frozenset[int]) -> frozenset[int]:
        """The conjunction without disjunctions one part of which is in it anyway."""

        def implied(one: int) -> bool:
            return any(part <= literal - {one} for part in self._parts.get(one, ()))

        return frozenset(one for one in literal if not implied(one))

    def _short(self, literal: frozenset[int]) -> frozenset[int]:
        return literal if len(literal) <= _LONGEST else frozenset((self.variable(literal),))

    def any(self, literals: Iterable[Literal]) -> Literal:
        """True where one of these is."""
        # a part that asks for more than another one adds nothing to "either"
        distinct = {literal for literal in literals if literal is not None}
        parts = [one for one in distinct if not any(other < one for other in distinct)]
        if len(parts) < 2:
            return parts[0] if parts else None
        key = frozenset(parts)
        if key not in self._either:
            self._either[key] = frozenset((self._disjunction(sorted(parts, key=sorted)),))
        return self._either[key]

    def _disjunction(self, parts: Sequence[frozenset[int]]) -> int:
        # found ≤ Σ parts where it may be at most their maximum, found ≥ each part where at least
        variables = [self.variable(part) for part in parts]
        found = self.rows.variable()
        if self.upper:
            self.rows.at_least({**dict.fromkeys(variables, 1.0), found: -1.0}, 0.0)
        else:
            for variable in variables:
                self.rows.at_least({found: 1.0, variable: -1.0}, 0.0)
        self._parts[found] = tuple(parts)
        return found

    def variable(self, literal: frozenset[int]) -> int:
        """The variable that stands for a conjunction."""
        if len(literal) == 1:
            return next(iter(literal))
        if literal not in self.conjunctions:
            # found ≤ each variable where it may be at most their minimum; where at least, it is 1
            # as soon as all of them are: found ≥ Σ variables - (their number - 1)
            found = self.conjunctions[literal] = self.rows.variable(least=float(not literal))
            if self.upper:
                for variable in sorted(literal):
                    self.rows.at_most({found: 1.0, variable: -1.0}, 0.0)
            elif literal:
                terms = {found: 1.0, **dict.fromkeys(sorted(literal), -1.0)}
                self.rows.at_least(terms, 1.0 - len(literal))
        return self.conjunctions[literal]

    def mapped(self, line: Line, change: Callable[[Literal], Literal]) -> Line:
        """A line with every distinct literal changed once."""
        found = {literal: change(literal) for literal in dict.fromkeys(line)}
        return tuple(found[literal] for literal in line)
