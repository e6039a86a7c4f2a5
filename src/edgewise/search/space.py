"""The masks a search may consider: valid, within rules and budget, protected units kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ..errors import BudgetError
from ..evaluation.records import Evaluation
from ..graph.budget import Budget
from ..graph.cost import cost_of
from ..graph.graph import Cost, Graph, Mask
from ..graph.liveness import liveness, shows
from ..graph.rules import forbidding, permitted
from ..graph.times import OperatorTimes
from ..values.quantities import shown
from .cost_estimate import QUANTITIES, CostEstimate

ROUNDING = 1e-6  # of a limit, by which an estimate may exceed it
TRUST = 0.25  # of what putting a unit back is estimated to cost, where costs do not add up
FIRST = 8  # masks of an order, whose costs are estimated at a time
SLACK = 1e-4  # of a limit, for which no more units are put back
SOME = 4  # masks that tell whether costs add up, of a quarter of the units at most


class Space:
    """The feasible masks of a graph, remembering what it has counted.

    Args:
        graph: the traced graph.
        budget: limits on what remains.
        protected: indices of units that must stay.
        times: of the operators; a budget of latency needs them.

    Raises:
        BudgetError: latency is limited, and there are no times.
    """

    def __init__(
        self,
        graph: Graph,
        budget: Budget,
        protected: Iterable[int] = (),
        times: OperatorTimes | None = None,
    ) -> None:
        if times is None and budget.latency is not None:
            raise BudgetError(
                "A latency budget needs a table of how long operators take on the target: "
                "table = ew.latency.measure(graph), then ew.Study(graph, ..., latency=table)."
            )
        self.graph, self.budget, self.times = graph, budget, times
        self.protected = frozenset(protected)
        self.free = tuple(i for i in range(len(graph.units)) if i not in self.protected)
        self._costs: dict[Mask, Cost | None] = {}
        self._networks: dict[Mask, int] = {}
        self._estimate: list[CostEstimate] = []  # made when it is needed
        self._additive: list[tuple[bool, bool]] = []  # likewise
        unpruned = self.cost(graph.empty)
        assert unpruned is not None
        self.unpruned = unpruned
        self.limits = budget.absolute(unpruned)
        self._saved: list[float] = []

    def protecting(self, units: Iterable[int]) -> Space:
        """The same space with further protected units."""
        space = Space(self.graph, self.budget, self.protected.union(units), self.times)
        self._shares_with(space)
        space._saved = self._saved
        return space

    def at(self, budget: Budget) -> Space:
        """The same graph and protected units at another budget."""
        space = Space(self.graph, budget, self.protected, self.times)
        self._shares_with(space)
        return space

    def _shares_with(self, other: Space) -> None:
        other._costs, other._networks = self._costs, self._networks
        other._estimate, other._additive = self._estimate, self._additive

    def by_mask(self, evaluations: Iterable[Evaluation]) -> dict[Mask, Evaluation]:
        """Records of this graph by the masks that they are of."""
        return {self.graph.mask(bits=e.mask): e for e in evaluations}

    def cost(self, mask: Mask) -> Cost | None:
        """The exact cost of a mask, None if it disconnects an output or breaks a rule."""
        if mask not in self._costs:
            alive = liveness(self.graph, mask)
            valid = alive.connected and permitted(self.graph, [mask])[0]
            cost = cost_of(self.graph, alive) if valid else None
            if cost is not None and self.times is not None:
                cost = replace(cost, seconds=self.times.seconds(alive))
            self._costs[mask] = cost
        return self._costs[mask]

    def network(self, mask: Mask) -> int:
        """A number that is the same for masks that leave the same network."""
        if mask not in self._networks:
            self._networks[mask] = liveness(self.graph, mask).mark
        return self._networks[mask]

    def minimal(self, mask: Mask) -> Mask:
        """The mask without the units that are dead anyway: a layer of a branch that is gone."""
        alive = liveness(self.graph, mask)
        for unit in reversed(mask.removed):
            if shows(self.graph, alive, self.graph.units[unit]):
                continue
            less = mask.with_kept(unit)
            if self.network(less) == self.network(mask):
                mask = less
        return mask

    def connected(self, mask: Mask) -> bool:
        """Whether a mask is valid: it leaves every output, and breaks no rule."""
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

    def likely(self, masks: Sequence[Mask], near: Mask, trust: float = 0.0) -> NDArray[np.bool_]:
        """[n]: which masks are expected to be within the budget, next to one that is counted.

        Only graphs are judged in which the estimate is good: those with widths, whose costs almost
        multiply, and those in which a few masks cost what is estimated, or leave as many units as
        they name; with `trust`, others too, as if so much of an estimated change were true. Masks
        that break a rule are not.
        """
        names = [name for name in self.limits if name in (*QUANTITIES, "latency")]
        cost, fine = self.cost(near), permitted(self.graph, masks)
        if cost is None or not len(masks):
            return fine
        costs, units = self.adds_up
        if units and "units" in self.limits:
            fine &= len(self.graph.units) - self.graph.matrix(masks).sum(1) <= self.limits["units"]
        if not names or not (costs or trust):
            return fine
        expected, known = self.estimate(masks, near, cost), self.estimate.amounts(cost)
        expected = expected if costs else known + trust * (expected - known)
        columns = [self.estimate.quantities.index(name) for name in names]
        limits = [self.limits[name] for name in names]
        return np.asarray(fine & (expected[:, columns] <= np.array(limits) * (1 + ROUNDING)).all(1))

    @property
    def adds_up(self) -> tuple[bool, bool]:
        """Whether valid masks of random units cost what is estimated; and as many as they name."""
        if self.graph.nested:
            return True, False
        if not self._additive:
            rng, units = np.random.default_rng(0), len(self.graph.units)
            orders = [rng.permutation(units)[: -(-units // 4)].tolist() for _ in range(SOME)]
            known = {m: self.cost(m) for m in (self._without(self.graph.empty, o) for o in orders)}
            expected = self.estimate(list(known))
            costs, counts = [], []
            for row, (mask, cost) in zip(expected, known.items(), strict=True):
                assert cost is not None
                costs.append(np.allclose(row, self.estimate.amounts(cost), rtol=ROUNDING))
                counts.append(cost.units == units - len(mask.removed))
            self._additive.append((all(costs), all(counts)))
        return self._additive[0]

    def _without(self, mask: Mask, units: Sequence[int]) -> Mask:
        """The mask with as many of these units removed as leave a valid one, halves at a time."""
        more = mask.with_removed(*units)
        if self.connected(more):
            return more
        if len(units) < 2:
            return mask
        half = len(units) // 2
        return self._without(self._without(mask, units[:half]), units[half:])

    @property
    def estimate(self) -> CostEstimate:
        """What many masks cost, nearly."""
        if not self._estimate:
            self._estimate.append(CostEstimate(self.graph, self.times))
        return self._estimate[0]

    def _used(self, cost: Cost) -> float:
        """A cost relative to the limits, added up."""
        return sum(float(getattr(cost, n)) / max(limit, 1e-9) for n, limit in self.limits.items())

    def next_of(self, mask: Mask, unit: int) -> int | None:
        """What goes when a unit is to be removed: of a group of widths, the least important."""
        first: int | None = unit
        if (group := self.graph.group_of.get(unit)) is not None:
            first = next((u for u in group if not mask.bits[u]), None)
        elif mask.bits[unit]:
            return None
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
        if not self._saved:
            self._saved.extend(map(self._alone, range(len(self.graph.units))))
        return self._saved[unit]

    def _alone(self, unit: int) -> float:
        saved = self.graph.units[unit].cost
        if self.times is not None:
            rest = self.cost(self.graph.mask([unit]))
            seconds = self.unpruned.latency - rest.latency if rest else 0.0
            saved = replace(saved, seconds=seconds)
        return self._used(saved)

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

        The place where the budget is met is looked for among the masks after each removal. Where
        that one is disconnected, each removal is checked.
        """
        order = list(order)
        found = self._first_within(chain([mask], self._steps(mask, order, check=False)), mask)
        if self.connected(found):
            return found
        for more in self._steps(mask, order, check=True):
            mask = more
        return mask

    def _first_within(self, masks: Iterable[Mask], near: Mask) -> Mask:
        """The first mask within the budget, where costs fall; the last one if none is.

        It is where the estimate says, which looks at more and more of them, or found by bisection.
        """
        rest, steps, guess = iter(masks), list[Mask](), 0
        while guess == len(steps) and (more := [*islice(rest, max(len(steps), FIRST))]):
            steps += more
            guess += self._first_likely(more, near)
        after, before = steps[guess : guess + 1], steps[max(guess - 1, 0) : guess]
        if any(self.excess(m) > 0 for m in after) or any(self.excess(m) <= 0 for m in before):
            steps += rest
            guess = bisect_left(steps, True, key=lambda mask: self.excess(mask) <= 0)
        return steps[min(guess, len(steps) - 1)]

    def _first_likely(self, masks: Sequence[Mask], near: Mask) -> int:
        """The place of the first mask expected within the budget, where costs fall; or the end."""
        low, high = 0, len(masks)
        while low < high:
            some = np.linspace(low, high - 1, min(FIRST, high - low)).astype(int).tolist()
            fits = self.likely([masks[i] for i in some], near)
            at = int(np.argmax([*fits, True]))
            low = some[at - 1] + 1 if at else low
            high = some[at] if at < len(some) else high
        return high

    def _steps(self, mask: Mask, order: Iterable[int], check: bool) -> Iterator[Mask]:
        """The mask after each removal, in this order; checked ones connect, up to the budget."""
        for unit in order:
            if check and self.excess(mask) <= 0:
                return
            following = self.next_of(mask, unit)
            if following is None:
                continue
            more = mask.with_removed(following)
            if self.connected(more) if check else permitted(self.graph, [more])[0]:
                mask = more
                yield mask

    def refilled(self, mask: Mask, order: Iterable[int]) -> Mask:
        """The mask with units of this order put back as long as the budget stays met.

        Until next to nothing of a limit is left: of what comes back after that most is dead.
        """
        units = list(order)
        if self.graph.nested:  # all that fit one after the other, then single ones
            fuller = [*self._returns(mask, units)][::-1]
            mask = self._first_within([*fuller, mask], mask)
        while units and not self._full(mask):
            lasts = [(place, self.last_of(mask, unit)) for place, unit in enumerate(units)]
            back = [(place, u) for place, u in lasts if u is not None and self.saving(u) > 0]
            less = [mask.with_kept(unit) for _, unit in back]
            fits = np.flatnonzero(self.likely(less, mask, TRUST)).tolist()
            first = next((k for k, n in enumerate(fits) if self.allows(less[n])), len(fits))
            more = [*self._returns(mask, (back[n][1] for n in fits[first:]))]
            count = _leading(more, self.allows)
            if not count:
                break
            mask, units = more[count - 1], units[back[fits[first + count - 1]][0] + 1 :]
        return mask

    def _full(self, mask: Mask) -> bool:
        """Whether a mask leaves next to nothing of a limit."""
        cost, most = self.cost(mask), 1.0 - SLACK
        return cost is not None and any(
            float(getattr(cost, name)) > most * limit for name, limit in self.limits.items()
        )

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
            BudgetError: none of these orders meets the budget; names the smallest cost reached, and
                the rules without which the budget is met.
        """
        try:
            return self._reachable()
        except BudgetError as error:
            raise BudgetError(f"{error}{self.forbidden()}") from None

    def forbidden(self) -> str:
        """Which rules keep all masks out of the budget, in words; nothing where none does."""

        def allows(graph: Graph) -> bool:
            space = Space(graph, self.budget, times=self.times and replace(self.times, graph=graph))
            with suppress(BudgetError):
                return bool(space._reachable())
            return False

        return forbidding(self.graph, allows)

    def _reachable(self) -> Mask:
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
        assert cost is not None
        missed = [n for n, limit in self.limits.items() if getattr(cost, n) > limit + 1e-9]
        reached = ", ".join(
            f"{name} {shown(name, left := getattr(cost, name))} "
            f"({left / getattr(self.unpruned, name):.1%})"
            for name in missed or self.limits
        )
        kept = f" with {len(self.protected)} units protected" if self.protected else ""
        return BudgetError(
            f"No mask{kept} was found within the budget ({self.budget}). Removing all that can be "
            f"removed leaves {reached}. Raise the limit, or offer more units (granularity)."
        )


def _leading(masks: Sequence[Mask], holds: Callable[[Mask], bool]) -> int:
    """How many of the first masks hold, where none does after one that does not.

    They are looked at in steps that double, then by bisection: few, if few hold.
    """
    known, step = 0, 1
    while known < len(masks) and holds(masks[min(known + step, len(masks)) - 1]):
        known, step = min(known + step, len(masks)), 2 * step
    end = min(known + step, len(masks))
    return bisect_left(masks, True, known, max(end - 1, known), key=lambda mask: not holds(mask))
