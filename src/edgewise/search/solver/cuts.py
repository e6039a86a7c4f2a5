"""Rows that cut off a mask which an exact count refuses, and all that must fail for its reason.

Removing more never raises a cost (law 4), so that with a mask above the budget go all masks that
remove less. With a mask that disconnects an output go all that remove more.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ...graph.graph import Mask
from ..space import Space

_BISECTIONS = 6  # by which a mask above the budget is made as small as it can be


def refusals(
    space: Space, keeps: Sequence[int], mask: Mask, orders: Iterable[Sequence[int]]
) -> list[tuple[dict[int, float], float]]:
    """Rows Σ terms ≥ least that a mask breaks, and no feasible mask does.

    Args:
        space: that does not allow the mask.
        keeps: the variables of the units.
        mask: above the budget, or without an output.
        orders: of units, in which such a mask is made larger as long as it is above the budget.
    """
    if not space.connected(mask):
        return [({keeps[u]: 1.0 for u in _last_of_groups(space, _fewest(space, mask))}, 1.0)]
    found: dict[tuple[int, ...], None] = {}
    by_saving = sorted(space.free, key=space.saving)
    for order in (by_saving, *orders):
        larger = _most(space, mask, order)
        outside = [u for u in space.free if not larger.bits[u] and space.next_of(larger, u) == u]
        found[tuple(outside)] = None
    # at least one further unit must go: Σ keep ≤ n - 1
    return [({keeps[u]: -1.0 for u in units}, 1.0 - len(units)) for units in found]


def _fewest(space: Space, mask: Mask) -> Mask:
    """A mask without an output that removes no more than it must for that."""
    for unit in mask.removed:
        last = space.last_of(mask, unit)
        if last is not None and not space.connected(less := mask.with_kept(last)):
            mask = less
    return mask


def _last_of_groups(space: Space, mask: Mask) -> list[int]:
    """The removed units that no other removed unit implies."""
    return [u for u in mask.removed if space.last_of(mask, u) == u]


def _most(space: Space, mask: Mask, order: Sequence[int]) -> Mask:
    """A valid mask above the budget that removes as much as it can, trying units in this order.

    Costs fall along the order, so that the place where the budget is met is found by bisection;
    the unit there is left out, and the rest tried again.
    """

    def too_large(larger: Mask) -> bool:
        cost = space.cost(larger)
        return cost is not None and not space.budget.allows(cost, space.unpruned)

    rest = list(order)
    for _ in range(_BISECTIONS):
        steps = [mask]
        units = [-1]
        for place, unit in enumerate(rest):
            following = space.next_of(steps[-1], unit)
            if following is not None:
                steps.append(steps[-1].with_removed(following))
                units.append(place)
        last = bisect_right(steps, False, key=lambda step: not too_large(step)) - 1
        mask = steps[max(last, 0)]
        if last + 1 >= len(steps):
            return mask
        rest = rest[units[last + 1] + 1 :]
    return mask
