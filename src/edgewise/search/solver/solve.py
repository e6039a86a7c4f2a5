"""The mask of least predicted loss within a budget, with a proof: a mixed-integer programme.

The rows of `model.py` bound costs from below, so that no feasible mask is cut off. A solution that
an exact count refuses is cut off together with all masks that must fail for the same reason: those
that remove less, as removing more never raises a cost (law 4), or those that remove as much, where
an output is disconnected. What is found in the end is feasible, and nothing feasible is better.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import BudgetError
from ...graph.graph import Cost, Mask
from ..space import Space
from .cuts import refusals
from .least_cost import impossible
from .model import Frame, minimise
from .objective import Target, target_of
from .rows import Rows

TOLERANCE = 1e-5  # of a prediction, that the solver's own tolerances may add up to


@dataclass(frozen=True)
class Solution:
    """The best mask found, and what is proven of it; about the surrogate, not the network.

    Args:
        mask: within the budget.
        cost: what remains of the network, counted exactly.
        value: the prediction on the link scale that was minimised.
        bound: no mask within the budget has a lower one.
        optimal: whether the search ended, so that value and bound agree but for rounding.
        left_out: by how much interactions that were left out may change a prediction, at most.
        rounds: how often the solver ran.
        cuts: rows that were added for masks above the budget or without an output.
        seconds: in all.
    """

    mask: Mask
    cost: Cost
    value: float
    bound: float
    optimal: bool
    left_out: float
    rounds: int
    cuts: int
    seconds: float

    @property
    def gap(self) -> float:
        """How much lower a prediction may be, on the link scale; 0 if none is."""
        return 0.0 if self.optimal else max(self.value - self.bound, 0.0)


def solve(
    space: Space,
    model: Any,
    *,
    time_limit: float | None = None,
    pairs: int | None = None,
    frame: Frame | None = None,
    nodes: int | None = None,
) -> Solution:
    """The mask of a space with the least prediction of a surrogate.

    Args:
        space: graph, budget and protected units.
        model: a fitted `PathSum`, `GraphGP` (its path sum is minimised), `Linear` or `Degree2`.
        time_limit: seconds after which the best mask so far is returned, with its gap; without a
            limit the result depends on nothing but the arguments.
        pairs: interactions of a `Degree2` that count, the strongest; three a unit unless given.
        frame: of the same graph and quantities, to be used again.
        nodes: of each branch-and-bound tree after which the best mask so far is returned, as with
            a time limit, but no clock decides.

    Raises:
        BudgetError: no mask is within the budget, with the least cost that is reachable; or none
            was found in time.

    Examples:
        >>> from edgewise.search import Space, solve
        >>> model = ew.surrogates.PathSum(graph).fit(X, losses)
        >>> found = solve(Space(graph, ew.Budget(macs=0.7)), model)
        >>> found.optimal, found.cost.macs <= 0.7 * ew.cost(graph).macs
        (True, True)
    """
    target = target_of(model, len(space.graph.units), pairs)
    frame = frame or Frame(space.graph, tuple(space.limits), space.times)
    return _Solver(space, target, frame, time_limit, nodes).run()


class _Solver:
    def __init__(
        self, space: Space, target: Target, frame: Frame, time_limit: float | None,
        nodes: int | None,
    ) -> None:  # fmt: skip
        self.space, self.target, self.frame, self.nodes = space, target, frame, nodes
        self.began, self.time_limit = time.monotonic(), time_limit
        self.best: Mask | None = None
        self.value = np.inf
        self.rounds = self.cuts = 0
        everything = np.eye(len(space.graph.units))
        base, *alone = self._predict(np.vstack([0 * everything[:1], everything]))
        harm = {u: space.price(u, max(v - base, 0.0)) for u, v in enumerate(alone)}
        self.order = sorted(space.free, key=lambda u: harm[u])

    def run(self) -> Solution:
        rows = self.frame.within(self.space)
        objective = self.target.write(rows, self.frame)
        bound, optimal, exact, goes_on = self.target.floor, False, False, True
        while goes_on and not optimal and not exact:
            found = minimise(rows, objective.terms, self._left(), self.nodes)
            self.rounds += 1
            goes_on = found.finished and self._left() != 0.0
            if not found.feasible:
                if self.best is None:
                    raise impossible(self.space, self.frame, self._left())
                break
            if np.isfinite(found.bound):
                bound = max(bound, objective.of(found.bound))
            if found.x is not None:
                mask = self.frame.mask(found.x)
                allowed = self._consider(mask, rows)
                exact = allowed and not objective.tighten(self.space.graph.matrix([mask]))
            optimal = self.value <= bound + TOLERANCE * (1 + abs(bound))
        if self.best is None:
            self._keep(self._heuristic())
        self._polish()
        return self._solution(min(bound, self.value), optimal)

    def _left(self) -> float | None:
        """Seconds left, None if there is no limit."""
        if self.time_limit is None:
            return None
        return max(self.time_limit - (time.monotonic() - self.began), 0.0)

    def _predict(self, X: Any) -> list[float]:
        return [float(v) for v in self.target.predict(X)]

    def _consider(self, mask: Mask, rows: Rows) -> bool:
        """Take a mask, or cut it off and take one near it; whether it was allowed."""
        if self.space.allows(mask):
            self._keep(mask)
            return True
        cuts = refusals(self.space, self.frame.keeps, mask, [self.order])
        for terms, least in cuts:
            rows.at_least(terms, least)
        self.cuts += len(cuts)
        self._keep(self._repaired(mask))
        return False

    def _keep(self, mask: Mask | None) -> None:
        if mask is not None and self.space.allows(mask):
            value = self._predict(self.space.graph.matrix([mask]))[0]
            if value < self.value:
                self.best, self.value = mask, value

    def _repaired(self, mask: Mask) -> Mask | None:
        if not self.space.connected(mask):
            return None
        mask = self.space.removing(mask, self.order)
        return self.space.refilled(mask, self.order[::-1]) if self.space.allows(mask) else None

    def _heuristic(self) -> Mask:
        """Some mask within the budget, where the solver found none in time."""
        try:
            return self.space.shrink(self.order)
        except BudgetError:
            return self.space.reachable()

    def _polish(self) -> None:
        """Put back what was removed for nothing."""
        assert self.best is not None
        for unit in reversed(self.order):
            last = self.space.last_of(self.best, unit)
            if last is None:
                continue
            less = self.best.with_kept(last)
            if self.space.allows(less):
                value = self._predict(self.space.graph.matrix([less]))[0]
                if value <= self.value:
                    self.best, self.value = less, value

    def _solution(self, bound: float, optimal: bool) -> Solution:
        assert self.best is not None
        cost = self.space.cost(self.best)
        assert cost is not None
        return Solution(
            self.best, cost, self.value, bound, optimal, getattr(self.target, "left_out", 0.0),
            self.rounds, self.cuts, time.monotonic() - self.began,
        )  # fmt: skip
