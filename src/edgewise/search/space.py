"""The masks a search may consider: valid, within the budget, protected units kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np

from ..cost import cost_of
from ..errors import BudgetError
from ..graph import Cost, Graph, Mask
from ..liveness import liveness
from ..records import Budget

SLACK = 0.9  # of a width's estimated saving must fit into the budget, before it is counted


class Space:
    """The feasible masks of a graph, remembering what it has counted.

    Args:
        graph: the traced graph.
        budget: limits on what remains.
        protected: indices of units that must stay.
    """

    def __init__(self, graph: Graph, budget: Budget, protected: Iterable[int] = ()) -> None:
        self.graph, self.budget = graph, budget
        self.protected = frozenset(protected)
        self.free = tuple(i for i in range(len(graph.units)) if i not in self.protected)
        self._left: dict[Mask, tuple[Cost | None, int]] = {}
        unpruned = self.cost(graph.empty)
        assert unpruned is not None
        self.unpruned = unpruned
        self.limits = budget.absolute(unpruned)
        self._savings = [self._used(unit.cost) for unit in graph.units]

    def protecting(self, units: Iterable[int]) -> Space:
        """The same space with further protected units."""
        space = Space(self.graph, self.budget, self.protected.union(units))
        space._left = self._left
        return space

    def cost(self, mask: Mask) -> Cost | None:
        """The exact cost of a mask, None if it disconnects an output."""
        return self._count(mask)[0]

    def network(self, mask: Mask) -> int:
        """A number that is the same for masks that leave the same network."""
        return self._count(mask)[1]

    def _count(self, mask: Mask) -> tuple[Cost | None, int]:
        if mask not in self._left:
            alive = liveness(self.graph, mask)
            cost = cost_of(self.graph, alive) if alive.connected else None
            self._left[mask] = cost, hash(alive.signature)
        return self._left[mask]

    def minimal(self, mask: Mask) -> Mask:
        """The mask without the units that are dead anyway: a layer of a branch that is gone."""
        for unit in reversed(mask.removed):
            less = mask.with_kept(unit)
            if self.network(less) == self.network(mask):
                mask = less
        return mask

    def connected(self, mask: Mask) -> bool:
        return self.cost(mask) is not None

    def allows(self, mask: Mask) -> bool:
        """Whether a mask is valid and within the budget, and keeps what is protected."""
        cost = self.cost(mask)
        if cost is None or any(mask.bits[unit] for unit in self.protected):
            return False
        return self.budget.allows(cost, self.unpruned)

    def excess(self, mask: Mask) -> float:
        """How far a valid mask is above the budget (0 = within)."""
        cost = self.cost(mask)
        return float("inf") if cost is None else self.budget.excess(cost, self.unpruned)

    def returning(self, mask: Mask) -> Callable[..., bool]:
        """Tells whether a unit may come back, for another one or for none, without counting.

        What widths save almost adds up; `SLACK` of it is left to the exact count. Other units
        always may.
        """
        cost = self.cost(mask)
        assert cost is not None
        left, alone = self._used(cost), sum(self.saving(u) for u in mask.removed)
        room = len(self.limits) - left
        real = min((self._used(self.unpruned) - left) / alone, 1.0) if alone > 0 else 1.0

        def may_return(unit: int, instead: int | None = None) -> bool:
            more = 0.0 if instead is None else self.saving(instead)
            widths = unit in self.graph.group_of
            return not widths or SLACK * real * self.saving(unit) <= room + real * more

        return may_return

    def _used(self, cost: Cost) -> float:
        """A cost relative to the limits, added up."""
        return sum(float(getattr(cost, n)) / max(limit, 1e-9) for n, limit in self.limits.items())

    def next_of(self, mask: Mask, unit: int) -> int | None:
        """What goes when a unit is to be removed: of a group of widths, the least important."""
        group = self.graph.group_of.get(unit, (unit,))
        first = next((u for u in group if not mask.bits[u]), None)
        return None if first in self.protected else first

    def last_of(self, mask: Mask, unit: int) -> int | None:
        """What comes back when a unit is to be put back: of a group, the most important."""
        group = self.graph.group_of.get(unit, (unit,))
        return next((u for u in reversed(group) if mask.bits[u]), None)

    def gone(self, mask: Mask) -> list[int]:
        """The units that can be put back one at a time."""
        return [u for u in self.free if mask.bits[u] and self.last_of(mask, u) == u]

    def here(self, mask: Mask) -> list[int]:
        """The units that can be removed one at a time."""
        return [u for u in self.free if not mask.bits[u] and self.next_of(mask, u) == u]

    def saving(self, unit: int) -> float:
        """What removing a unit alone saves, relative to the limits."""
        return self._savings[unit]

    def price(self, unit: int, harm: float) -> float:
        """A harm relative to what removing a unit alone saves."""
        return harm / max(self.saving(unit), 1e-12)

    def shrink(self, order: Iterable[int]) -> Mask:
        """Remove units in this order until the budget is met, skipping what would disconnect.

        Units that save nothing by themselves come last, since removing a skip first would make
        its branch a bridge. Units that turn out not to be needed are put back, the last first.

        Raises:
            BudgetError: the budget is not met when nothing more can be removed; says how far
                this order got.
        """
        order = sorted(order, key=lambda unit: self.saving(unit) <= 0)
        mask = self.removing(self.graph.empty, order)
        if self.excess(mask) > 0:
            raise self._impossible(mask)
        return self.refilled(mask, reversed(order))

    def removing(self, mask: Mask, order: Iterable[int]) -> Mask:
        """The mask with units of this order removed until the budget is met, if it can be.

        Widths never disconnect, so a run of them is removed as a whole and the place where the
        budget is met is found by bisection.
        """
        for widths, run in groupby(order, key=lambda unit: unit in self.graph.group_of):
            if self.excess(mask) <= 0:
                break
            steps = list(self._steps(mask, run, check=not widths))
            enough = bisect_left(steps, True, key=lambda more: self.excess(more) <= 0)
            mask = steps[min(enough, len(steps) - 1)] if steps else mask
        return mask

    def _steps(self, mask: Mask, order: Iterable[int], check: bool) -> Iterator[Mask]:
        """The mask after each removal, in this order, up to the budget if each is checked."""
        for unit in order:
            following = self.next_of(mask, unit)
            if following is None:
                continue
            more = mask.with_removed(following)
            if check and not self.connected(more):
                continue
            mask = more
            yield mask
            if check and self.excess(mask) <= 0:
                return

    def refilled(self, mask: Mask, order: Iterable[int]) -> Mask:
        """The mask with units of this order put back as long as the budget stays met."""
        for widths, run in groupby(order, key=lambda unit: unit in self.graph.group_of):
            units = list(run)
            if widths:  # all that fit one after the other, by bisection, then single ones
                steps = [mask, *self._returns(mask, units)]
                fitting = bisect_left(steps, True, key=lambda more: not self.allows(more))
                mask = steps[max(fitting - 1, 0)]
            may_return = self.returning(mask)
            for unit in units:
                last = self.last_of(mask, unit)
                if last is None or self.saving(last) <= 0 or not may_return(last):
                    continue
                less = mask.with_kept(last)
                if self.allows(less):
                    mask, may_return = less, self.returning(less)
        return mask

    def _returns(self, mask: Mask, units: Iterable[int]) -> Iterator[Mask]:
        for unit in units:
            last = self.last_of(mask, unit)
            if last is not None and last in self.free:
                mask = mask.with_kept(last)
                yield mask

    def reachable(self) -> Mask:
        """Some mask within the budget.

        The largest savers go first, then units in a few random orders.

        Raises:
            BudgetError: none of these orders meets the budget; names the smallest cost reached.
        """
        by_saving = sorted(self.free, key=self.saving, reverse=True)
        rng = np.random.default_rng(0)
        failure: BudgetError | None = None
        for order in (by_saving, *(rng.permutation(self.free).tolist() for _ in range(4))):
            try:
                return self.shrink(order)
            except BudgetError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    def _impossible(self, mask: Mask) -> BudgetError:
        cost = self.cost(mask)
        reached = ", ".join(
            f"{name} {(left := getattr(cost, name)):,} ({left / getattr(self.unpruned, name):.1%})"
            for name in self.limits
        )
        kept = f" with {len(self.protected)} units protected" if self.protected else ""
        return BudgetError(
            f"No mask{kept} was found within the budget ({self.budget}). Removing all that can be "
            f"removed leaves {reached}. Raise the limit, or offer more units (granularity)."
        )
