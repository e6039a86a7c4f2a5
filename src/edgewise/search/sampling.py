"""Random masks that are valid and distinct."""

from functools import partial

import numpy as np

from ..errors import BudgetError, MaskError
from ..graph.budget import Budget, as_budget
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..graph.rules import forbidding, permitted
from .space import Space

_TRIES = 100  # orders for each mask that is drawn
_ORDERS = 8  # of removal, that tell whether there are masks without a rule
_MISSES = 500  # in a row, then valid masks are taken to be rare or used up


def sample_masks(
    graph: Graph,
    n: int,
    *,
    removed: int | None = None,
    budget: Budget | float | str | None = None,
    rng: np.random.Generator,
) -> list[Mask]:
    """Random valid, distinct masks.

    With `removed`, masks of exactly that many units, uniformly over the valid ones (by rejection)
    unless valid ones are so rare that units are removed one after another instead; where there
    are widths, all orders in which units can go are alike, not all masks. With `budget`, units go
    in random order until the budget is met; those not needed for it are put back.

    Args:
        graph: the traced graph.
        n: how many masks.
        removed: units each removes.
        budget: limits on what remains.
        rng: source of randomness.

    Returns:
        Up to n masks; fewer where there are no more.

    Raises:
        MaskError: neither or both of removed and budget are given, or no mask exists.
        BudgetError: the budget cannot be met.

    Examples:
        >>> masks = ew.sample_masks(graph, 5, removed=2, rng=np.random.default_rng(0))
        >>> [len(mask.removed) for mask in masks]
        [2, 2, 2, 2, 2]
    """
    if (removed is None) == (budget is None):
        raise MaskError("sample_masks needs either removed= or budget=.")
    if budget is not None:
        space = Space(graph, as_budget(budget))
        space.reachable()
        return sample_at_budget(space, n, rng)
    assert removed is not None
    return _sample_removed(graph, n, removed, rng)


def draw_at_budget(space: Space, n: int, rng: np.random.Generator) -> list[Mask]:
    """n independent masks of a space at its budget, among which one may be there several times.

    All come from one distribution: units go in a uniformly random order until the budget is met,
    and those not needed for it are put back. An order that does not meet it is drawn again.

    Raises:
        BudgetError: hardly any order meets the budget.
    """
    found: list[Mask] = []
    for _ in range(n * _TRIES):
        if len(found) == n:
            return found
        try:
            found.append(space.shrink([int(u) for u in rng.permutation(space.free)]))
        except BudgetError:
            continue
    raise BudgetError(
        f"Only {len(found)} of {n * _TRIES} random orders of removal meet the budget "
        f"({space.budget}): random masks at it cannot be drawn."
    )


def sample_at_budget(
    space: Space, n: int, rng: np.random.Generator, seen: frozenset[int] = frozenset()
) -> list[Mask]:
    """Up to n masks of a space at its budget, none of whose networks is in `seen`."""
    found: dict[Mask, None] = {}
    for _ in range(n * 10):
        if len(found) == n:
            break
        try:
            mask = space.shrink([int(u) for u in rng.permutation(space.free)])
        except BudgetError:
            continue  # this order painted itself into a corner; others do not
        if space.network(mask) not in seen:
            found[mask] = None
    return list(found)


def _sample_removed(graph: Graph, n: int, removed: int, rng: np.random.Generator) -> list[Mask]:
    if not 0 <= removed <= len(graph.units):
        raise MaskError(f"removed={removed}, but the graph has {len(graph.units)} units.")
    found: dict[Mask, None] = {}
    misses = 0
    while misses < _MISSES:
        if len(found) == n:
            return list(found)
        chosen = rng.choice(len(graph.units), removed, replace=False)
        mask = graph.nest(graph.mask(int(u) for u in chosen))
        new = mask not in found and _valid(graph, mask)
        misses = 0 if new else misses + 1
        if new:
            found[mask] = None
    for _ in range(min(n, _MISSES)):
        mask = _one_by_one(graph, removed, rng)
        if len(found) < n and len(mask.removed) == removed:
            found[mask] = None
    if not found:
        orders = partial(_one_by_one, removed=removed, rng=rng)
        why = forbidding(graph, lambda g: any(sum(orders(g)) == removed for _ in range(_ORDERS)))
        raise MaskError(
            f"No valid mask that removes {removed} of {len(graph.units)} units was found.{why}"
        )
    return list(found)


def _valid(graph: Graph, mask: Mask) -> bool:
    return liveness(graph, mask).connected and bool(permitted(graph, [mask])[0])


def _one_by_one(graph: Graph, removed: int, rng: np.random.Generator) -> Mask:
    mask = graph.empty
    for unit in rng.permutation(len(graph.units)):
        more = graph.nest(mask.with_removed(int(unit)))
        if len(mask.removed) < removed and _valid(graph, more):
            mask = more
    return mask
