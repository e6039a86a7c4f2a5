"""Masks that are chosen by what single units lose, before any surrogate knows anything."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import BudgetError
from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from .local_search import descend
from .space import Space

LEAST = 0.01  # of the unpruned loss: harm that the ranked mask is taken to do at least
TINY = 1e-9  # harm of a removal that does none: what saves most goes first


def harm_of(removal: Evaluation, before: float) -> float:
    """What a removal adds to the loss before it; inf where it cannot be measured."""
    return float("inf") if removal.loss is None else removal.loss - before


def by_price(space: Space, units: Iterable[int], harm: Mapping[int, float]) -> list[int]:
    """Units in the order of their harm relative to what each saves, the cheapest first."""
    return sorted(units, key=lambda u: space.price(u, max(harm[u], 0.0) + TINY))


def probes(space: Space) -> list[int]:
    """What is removed by itself first: each unit that is not a width."""
    return [u for u in space.free if u not in space.graph.group_of]


def damages(space: Space, evaluations: Mapping[Mask, Evaluation]) -> dict[int, float] | None:
    """What removing each unit alone adds to the loss (inf where it failed); None if unknown.

    The damage that the ranked mask does is shared out among all widths by importance.
    """
    base = evaluations.get(space.graph.empty)
    if base is None or base.loss is None:
        return None
    found: dict[int, float] = {}
    for unit in probes(space):
        mask = space.graph.mask([unit])
        measured = evaluations.get(mask)
        if not space.connected(mask):
            found[unit] = float("inf")
        elif measured is None:
            return None
        else:
            found[unit] = harm_of(measured, base.loss)
    return found | _width_damages(space, evaluations, base.loss)


def _width_damages(
    space: Space, evaluations: Mapping[Mask, Evaluation], base: float
) -> dict[int, float]:
    shares = {u: max(space.graph.units[u].importance, 0.0) for u in space.graph.group_of}
    ranked = ranked_pick(space)
    measured = evaluations.get(ranked) if ranked else None
    if ranked is None or measured is None or measured.loss is None:
        return shares
    gone = sum(shares[u] for u in ranked.removed if u in shares)
    scale = max(measured.loss - base, LEAST * abs(base)) / gone if gone > 0 else 1.0
    return {u: scale * share for u, share in shares.items() if u not in space.protected}


def single_pick(space: Space, evaluations: Mapping[Mask, Evaluation]) -> Mask | None:
    """The mask at the budget of the least sum of leave-one-out damages, interactions ignored."""
    alone = damages(space, evaluations)
    if alone is None:
        return None
    worst = max((d for d in alone.values() if np.isfinite(d)), default=0.0)
    weights = np.zeros(len(space.graph.units))
    for unit, damage in alone.items():
        weights[unit] = damage if np.isfinite(damage) else 10 * abs(worst) + 1.0
    return cheapest(space, weights)


def cheapest(space: Space, weights: NDArray[np.float64]) -> Mask | None:
    """The mask at the budget of the least sum of weights [n_units], or one near to it."""
    order = sorted(space.free, key=lambda u: space.price(u, float(weights[u])))
    try:
        start = space.shrink(order)
    except BudgetError:
        start = space.reachable()
    rng = np.random.default_rng(0)  # matters only where there are too many moves to try all
    return descend(space, lambda X: np.asarray(X @ weights), start, rng=rng)


def ranked_pick(space: Space) -> Mask | None:
    """The mask of the least important widths, in one ranking of all; None without widths.

    It is at the budget, or as near to it as half of every width comes.
    """
    units, free = space.graph.units, set(space.free)
    widths = [u for u in space.free if u in space.graph.group_of]
    order = sorted(widths, key=lambda u: space.price(u, units[u].importance))
    try:
        return space.shrink(order) if widths else None
    except BudgetError:
        halves = [u for g in space.graph.nested if free.issuperset(g) for u in g[: len(g) // 2]]
        mask = space.graph.mask(halves)
        return mask if halves and space.connected(mask) else None


def fatal_units(space: Space, evaluations: Mapping[Mask, Evaluation]) -> frozenset[int]:
    """Units whose removal alone loses more than the whole single-pick mask does.

    A mask with such a unit could only be better than the single pick if other removals repaired
    the damage. Units that cannot be removed alone are fatal too.
    """
    pick = single_pick(space, evaluations)
    alone = damages(space, evaluations)
    if pick is None or alone is None:
        return space.protected
    whole, base = evaluations.get(pick), evaluations[space.graph.empty]
    if whole is None or whole.loss is None or base.loss is None:
        return space.protected
    bound = whole.loss - base.loss
    fatal = {
        u for u, damage in alone.items()
        if damage > bound and not pick.bits[u] and u not in space.graph.group_of
    }  # fmt: skip
    return space.protected.union(fatal)
