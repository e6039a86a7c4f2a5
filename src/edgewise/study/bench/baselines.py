"""What people use instead of a joint search, each a generator of questions as `search` is.

All see the same space and the same number of evaluations. Where a method orders units by harm, it
is the harm relative to what a unit saves, so that no method suffers from units of unequal size.
"""

from collections.abc import Sequence
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from ...errors import EdgewiseError
from ...graph.graph import Mask
from ...search.asks import Ask, Questions
from ...search.picks import by_price, cheapest, harm_of, probes, ranked_pick, single_pick
from ...search.proposals import mutants
from ...search.sampling import sample_at_budget
from ...search.space import Space

EXHAUSTED = 16  # free units whose masks can all be measured
OFFSPRING = 8  # masks a generation
FIRST = 0.2  # share of an evolution's evaluations that are drawn at random


def at_random(space: Space, limit: int, rng: np.random.Generator) -> Questions:
    """Random masks at the budget."""
    yield from _ask("random", sample_at_budget(space, limit, rng))


def scored(space: Space, scores: NDArray[np.float64]) -> Questions:
    """The mask of the least sum of given scores [n_units]."""
    pick = cheapest(space, scores)
    yield from _ask("scored", [pick] if pick else [])


def ranking(space: Space) -> Questions:
    """The least important widths, in one ranking."""
    pick = ranked_pick(space)
    yield from _ask("ranking", [pick] if pick else [])


def leave_one_out(space: Space) -> Questions:
    """Each unit alone (widths all in one ranking), then the mask of the least sum of their harm."""
    alone = [mask for u in probes(space) if space.connected(mask := space.graph.mask([u]))]
    ranked = ranked_pick(space)
    masks = [space.graph.empty, *alone, *([ranked] if ranked else [])]
    answers = yield Ask("baselines", "leave-one-out", tuple(masks))
    pick = single_pick(space, space.by_mask(answers))
    yield from _ask("leave-one-out", [pick] if pick else [])


def greedy(space: Space, limit: int) -> Questions:
    """One unit after the other, all of them measured again after each removal.

    As in SLEB (Song et al., 2024). When the evaluations run out, the rest goes in the order of
    the last round, and that mask is the last one measured.
    """
    mask, left, order = space.graph.empty, limit - 1, list(space.free)
    now = (yield Ask("baselines", "greedy", (mask,)))[0].loss or 0.0
    while space.excess(mask) > 0:
        steps = {u: mask.with_removed(u) for u in space.here(mask)}
        steps = {u: more for u, more in steps.items() if space.connected(more)}
        left -= len(steps)
        if left < 1 or not steps:
            yield from _ask("greedy", [space.removing(mask, order)])
            return
        answers = yield Ask("baselines", "greedy", tuple(steps.values()))
        harm = {u: harm_of(e, now) for u, e in zip(steps, answers, strict=True)}
        order = by_price(space, harm, harm)
        mask = steps[order[0]]
        now = answers[list(steps).index(order[0])].loss or now


def evolution(space: Space, limit: int, rng: np.random.Generator) -> Questions:
    """Random masks, then mutations of the best one so far, which the best of them replaces.

    After EvoPress (Sieberling et al., 2024): a mutation exchanges one to three units, fewer being
    likelier. A fifth of the evaluations are random masks; a generation has eight.
    """
    seen: set[int] = set()
    best: tuple[float, Mask] | None = None
    masks = sample_at_budget(space, max(round(FIRST * limit), 1), rng)
    left = limit
    while masks:
        answers = yield Ask("baselines", "evolution", tuple(masks))
        left -= len(masks)
        seen.update(map(space.network, masks))
        for mask, e in zip(masks, answers, strict=True):
            if e.loss is not None and (best is None or e.loss < best[0]):
                best = e.loss, mask
        if best is None:
            masks = sample_at_budget(space, min(OFFSPRING, left), rng, frozenset(seen))
            continue
        masks = list(islice(mutants(space, best[1], seen, rng), min(OFFSPRING, left)))


def exhaustive(space: Space, limit: int) -> Questions:
    """Every mask within the budget that leaves a network of its own.

    Raises:
        EdgewiseError: there are more than 2^16 masks, or more networks than evaluations.
    """
    if len(space.free) > EXHAUSTED:
        raise EdgewiseError(
            f"{len(space.free)} units have too many masks to measure them all; {EXHAUSTED} at most."
        )
    found: dict[int, Mask] = {}
    for bits in product((0, 1), repeat=len(space.free)):
        chosen = [unit for unit, bit in zip(space.free, bits, strict=True) if bit]
        mask = space.graph.nest(space.graph.mask(chosen))
        if space.allows(mask):
            found.setdefault(space.network(mask), mask)
    if len(found) > limit:
        raise EdgewiseError(
            f"There are {len(found)} networks within the budget; allow as many evaluations, or "
            "leave exhaustive out."
        )
    yield from _ask("exhaustive", list(found.values()))


def _ask(origin: str, masks: Sequence[Mask]) -> Questions:
    if masks:
        yield Ask("baselines", origin, tuple(masks))
