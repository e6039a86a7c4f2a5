"""What a surrogate thinks is reachable at several budgets: the least loss under each limit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...errors import BudgetError
from ...graph.budget import Budget
from ...graph.graph import Cost, Mask
from ..local_search import Array, descend
from ..solver.model import Frame
from ..solver.objective import solvable
from ..solver.solve import Solution, solve
from ..space import Space

_STEPS, _EXCHANGES = 20, 2  # of the descent that follows the solver


@dataclass(frozen=True)
class Point:
    """The best mask that is known or predicted at a budget.

    Args:
        mask: within the budget.
        cost: what remains, counted exactly.
        predicted: the surrogate's loss, in original units.
        deviation: its standard deviation.
        budget: the limits it was looked for at.
        solution: what the solver proved at that budget, about what it minimised; see `Solution`.
            None where no solver looked.
        measured: loss on the search split, None if the mask has not been measured.
    """

    mask: Mask
    cost: Cost
    predicted: float
    deviation: float
    budget: Budget
    solution: Solution | None
    measured: float | None = None


def front(
    space: Space,
    model: Any,
    budgets: Sequence[Budget],
    *,
    known: Iterable[Mask] = (),
    time_limit: float | None = None,
) -> list[Point]:
    """Points of which none is both dearer and worse than another, by the ε-constraint method.

    At each budget the solver minimises what it can of the surrogate (`solve`), and a descent on
    the whole surrogate starts from there; known masks compete. Nothing is measured. Where no
    solver takes a surrogate, longer descents start from the best known mask and from any other.

    Args:
        space: graph and protected units; its own budget does not matter.
        model: a fitted surrogate that has an uncertainty.
        budgets: limits, on the same quantities; those that no mask meets are left out.
        known: further masks.
        time_limit: seconds for each budget.

    Returns:
        The points by falling limits, the dearest first.

    Raises:
        BudgetError: no mask meets any of the budgets, or they limit different quantities.
    """
    if len({tuple(budget.limits) for budget in budgets}) != 1:
        raise BudgetError("A front needs at least one budget, and limits on the same quantities.")
    known = list(known)
    frame = Frame(space.graph, tuple(budgets[0].limits), space.times)
    found: dict[Mask, Point] = {}
    failure: BudgetError | None = None
    for budget in budgets:
        level = space.at(budget)
        try:
            solved = solvable(model)
            solution = solve(level, model, time_limit=time_limit, frame=frame) if solved else None
            point = _best(level, model, solution, [m for m in known if level.allows(m)])
        except BudgetError as error:
            failure = error
            continue
        found.setdefault(point.mask, point)
    if failure and not found:
        raise failure
    names = tuple(budgets[0].limits)
    points = [p for p in found.values() if not any(_beats(o, p, names) for o in found.values())]
    return sorted(points, key=lambda p: [-getattr(p.cost, name) for name in names])


def _best(space: Space, model: Any, solution: Solution | None, known: Sequence[Mask]) -> Point:
    def score(X: Array) -> Array:
        return np.asarray(model.predict_link(X))

    rng = np.random.default_rng(0)
    if solution is None:
        best_known = [known[int(np.argmin(score(space.graph.matrix(known))))]] if known else []
        starts = [space.reachable(), *best_known]
        ends = [descend(space, score, start, rng=rng) for start in starts]
    else:
        starts = [solution.mask]
        ends = [descend(space, score, solution.mask, rng=rng, steps=_STEPS, exchanges=_EXCHANGES)]
    masks = list(dict.fromkeys([*starts, *(end for end in ends if end), *known]))
    X = space.graph.matrix(masks)
    best = int(np.argmin(score(X)))
    mean, std = model.predict(X[best : best + 1], return_std=True)
    cost = space.cost(masks[best])
    assert cost is not None
    return Point(masks[best], cost, float(mean[0]), float(std[0]), space.budget, solution)


def _beats(one: Point, other: Point, names: Sequence[str]) -> bool:
    """Whether a point is as good in everything and better in something."""

    def values(point: Point) -> Array:
        return np.array([point.predicted, *(getattr(point.cost, name) for name in names)])

    a, b = values(one), values(other)
    return bool((a <= b).all() and (a < b).any())


def levels(budget: Budget, steps: int = 8) -> list[Budget]:
    """Budgets from nine tenths down to a fifth, all limits alike, in fractions."""
    shares = np.linspace(0.9, 0.2, steps).round(3).tolist()
    names = [f.name for f in fields(budget) if f.name in budget.limits]
    return [Budget(**dict.fromkeys(names, share)) for share in shares]
