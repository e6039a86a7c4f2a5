"""Trade-offs of predicted loss with several costs at once, by NSGA-II over valid masks.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002, as pymoo has it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ...errors import BudgetError, EdgewiseError
from ...graph.budget import Budget
from ...graph.graph import Mask
from ..local_search import Array
from ..space import Space
from .front import Point


def trade_offs(
    space: Space, model: Any, objectives: Sequence[str], *,
    known: Iterable[Mask] = (), seed: int = 0, population: int = 100, generations: int = 60,
) -> list[Point]:  # fmt: skip
    """Masks of which none is at least as good as another in everything and better in something.

    Args:
        space: graph and protected units; its budget does not matter.
        model: a fitted surrogate that has an uncertainty; its predicted loss is an objective.
        objectives: the costs, by their names in a budget; at least two.
        known: masks to start from.
        seed: of everything random.
        population: masks of a generation.
        generations: how many.

    Returns:
        The points, the dearest by the first cost first.

    Raises:
        BudgetError: an objective is no cost, or twice there, or there are fewer than two; or
            latency is one, and the space has no times.
        EdgewiseError: pymoo is not installed.
    """
    _check(space, objectives)
    nsga2, evaluate, nondominated = _pymoo(len(space.graph.units), 1 + len(objectives))
    rng = np.random.default_rng(seed)
    found: dict[Mask, list[float]] = {}

    def values(masks: Sequence[Mask]) -> Array:
        new = [mask for mask in dict.fromkeys(masks) if mask not in found]
        losses = model.predict(space.graph.matrix(new)).tolist() if new else []
        for mask, loss in zip(new, losses, strict=True):
            cost = space.cost(mask)
            found[mask] = [loss, *(float(getattr(cost, name)) for name in objectives)]
        return np.array([found[mask] for mask in masks])

    start = [_repaired(space, mask, rng) for mask in _start(space, known, population, rng)]
    algorithm = nsga2(space.graph.matrix(start).astype(bool), population, generations, seed)
    while algorithm.has_next():
        asked = algorithm.ask()
        masks = [_repaired(space, space.graph.mask(bits=x), rng) for x in asked.get("X")]
        asked.set("X", space.graph.matrix(masks).astype(bool))
        evaluate(asked, values(masks))
        algorithm.tell(infills=asked)
    return _points(space, model, list(found), nondominated(np.array(list(found.values()))))


def _check(space: Space, objectives: Sequence[str]) -> None:
    known = [f.name for f in fields(Budget)]
    if len(objectives) < 2 or len(set(objectives)) < len(objectives):
        raise BudgetError(
            "A front beside predicted loss needs at least two different costs of "
            f"{', '.join(known)}; got {', '.join(objectives) or 'none'}. For one cost use budgets=."
        )
    for name in objectives:
        if name not in known:
            raise BudgetError(f"No cost is called {name!r}; there are {', '.join(known)}.")
    if "latency" in objectives and space.times is None:
        raise BudgetError("Latency as an objective needs a study with a latency table.")


def _start(space: Space, known: Iterable[Mask], count: int, rng: np.random.Generator) -> list[Mask]:
    """What is known and random masks, of few units and of many; the empty one first."""
    units = len(space.graph.units)
    draws = rng.random((count, units)) < rng.random((count, 1))
    masks = [space.graph.empty, *known, *(space.graph.mask(bits=row) for row in draws)]
    return list(dict.fromkeys(masks))[: max(count, 1)]


def _repaired(space: Space, mask: Mask, rng: np.random.Generator) -> Mask:
    """The mask with widths in their order, and units put back until all that must be there is."""
    graph = space.graph
    kept = (unit for unit in mask.removed if unit not in space.protected)
    mask = graph.nest(graph.mask(kept))
    for unit in rng.permutation(sorted({*mask.removed})).tolist():
        if space.connected(mask) and not any(mask.bits[u] for u in space.protected):
            break
        last = space.last_of(mask, unit)
        mask = mask if last is None else mask.with_kept(last)
    return mask


def _points(space: Space, model: Any, masks: Sequence[Mask], best: Sequence[int]) -> list[Point]:
    chosen = [masks[i] for i in best]
    mean, std = model.predict(space.graph.matrix(chosen), return_std=True)
    points = []
    for mask, loss, deviation in zip(chosen, mean.tolist(), std.tolist(), strict=True):
        cost = space.cost(mask)
        assert cost is not None
        points.append(Point(mask, cost, loss, deviation, space.budget, None))
    return sorted(points, key=lambda p: (-p.cost.macs, -p.cost.params, p.predicted))


def _pymoo(units: int, objectives: int) -> Any:
    """What is used of pymoo: an NSGA-II over bits, its evaluator, and the non-dominated rows."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.ux import UX
        from pymoo.operators.mutation.bitflip import BitflipMutation
        from pymoo.problems.static import StaticProblem
        from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
    except ImportError as error:
        raise EdgewiseError(
            "A front of three objectives needs pymoo: pip install 'edgewise[pareto]'."
        ) from error
    problem = Problem(n_var=units, n_obj=objectives, xl=0, xu=1, vtype=bool)

    def nsga2(start: Any, population: int, generations: int, seed: int) -> Any:
        algorithm = NSGA2(population, sampling=start, crossover=UX(), mutation=BitflipMutation())
        return algorithm.setup(problem, termination=("n_gen", generations), seed=seed)

    def evaluate(asked: Any, values: Array) -> None:
        Evaluator().eval(StaticProblem(problem, F=values), asked)

    def nondominated(values: Array) -> list[int]:
        different, first = np.unique(values, axis=0, return_index=True)
        best = NonDominatedSorting().do(different, only_non_dominated_front=True)
        return sorted(first[best].tolist())

    return nsga2, evaluate, nondominated
