"""The least cost that any mask reaches, for those who ask for less."""

import time
from dataclasses import replace

from ...errors import BudgetError
from ...graph.budget import Budget
from ...graph.graph import Cost, Mask
from ...values.quantities import shown
from ..space import Space
from .cuts import refusals
from .model import Frame, minimise

_STEP = 1e-5  # of a time, by which one is less than another


def least_cost(
    space: Space, quantity: str, frame: Frame, seconds: float | None = None
) -> tuple[Cost | None, bool]:
    """The least of a quantity within the other limits of a space, and whether that is proven."""
    began = time.monotonic()
    others = {n: _limit(n, limit) for n, limit in space.limits.items() if n != quantity}
    best: Cost | None = None
    limit = getattr(space.unpruned, quantity)
    while limit > 0:
        budget = Budget(**{**others, quantity: _limit(quantity, limit)})
        narrow = Space(space.graph, budget, space.protected, space.times)
        rows = frame.within(narrow)
        objective = {k: v / limit for k, v in frame.prices[quantity].terms.items()}
        found: Mask | None = None
        while found is None:
            left = None if seconds is None else seconds - (time.monotonic() - began)
            solved = minimise(rows, objective, left)
            if not solved.feasible:
                return best, True
            if solved.x is None or (left is not None and left <= 0):
                return best, False
            found = frame.mask(solved.x)
            if not narrow.allows(found):
                for terms, bound in refusals(narrow, frame.keeps, found, []):
                    rows.at_least(terms, bound)
                found = None
        best = narrow.cost(found)
        least = getattr(best, quantity)
        limit = least * (1 - _STEP) if quantity == "latency" else least - 1
    return best, True


def _limit(name: str, limit: float) -> float | str:
    """A limit in a form that is absolute: a whole number, or a time with its unit."""
    return f"{limit:.12g}s" if name == "latency" else max(int(limit + 1e-9), 1)


def impossible(space: Space, frame: Frame, seconds: float | None) -> BudgetError:
    """That no mask is within the budget, with the least of each limit, alone or with the rest."""
    told = []
    for name, limit in space.limits.items():
        alone = replace(space.budget, **{n: None for n in space.limits if n != name})
        least, proven = least_cost(
            Space(space.graph, alone, space.protected, space.times), name, frame, seconds
        )
        if least is not None and getattr(least, name) > limit:
            told.append(_amount(space, name, least, proven))
    if not told:
        for name in space.limits:
            least, proven = least_cost(space, name, frame, seconds)
            if least is not None:
                told.append(f"{_amount(space, name, least, proven)} within the other limits")
    kept = f" with {len(space.protected)} units protected" if space.protected else ""
    return BudgetError(
        f"No mask{kept} is within the budget ({space.budget}). The least that is reachable: "
        f"{'; '.join(told) or 'nothing within these limits'}. Raise the limit, or offer more units "
        f"(granularity).{space.forbidden()}"
    )


def _amount(space: Space, name: str, cost: Cost, proven: bool) -> str:
    left = getattr(cost, name)
    doubt = "" if proven else " (found so far)"
    return f"{name} {shown(name, left)} ({left / getattr(space.unpruned, name):.1%}){doubt}"
