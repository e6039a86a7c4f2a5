"""Finding masks of low predicted loss: steepest descent over swaps, within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.graph import Mask
from .moves import NONE, Alone, Moves, Sides, moved, moves_of
from .space import Space

Array = np.ndarray[Any, np.dtype[np.float64]]
Score = Callable[[Array], Array]
_MOVES, _LEADING = 256, 15  # that a step scores, and of how many units it tries all pairs
_DRAWN = 512  # units that are looked at, drawn at random where there are more
_TRIED = 4  # units that are no widths, tried together with widths that make up for them
_ROUNDS = 4  # slices of one width that may make up for a removed unit, or for one put back


def descend(
    space: Space,
    score: Score,
    start: Mask,
    *,
    rng: np.random.Generator,
    avoid: frozenset[int] = frozenset(),
    steps: int = 100,
    exchanges: int = 100,
) -> Mask | None:
    """The local minimum of a score that steepest descent reaches from a feasible mask.

    Moves put one removed unit back, remove one more, or do both. Where these are too many, they are
    those of the most promising units, until none of them helps and others are looked for. At the
    end a unit that is no width changes, and widths make up for it. A move that leaves the budget or
    disconnects is never taken.

    Args:
        space: the feasible masks.
        score: predicted badness of masks given as [n, units] (1 = removed); lower is better.
        start: a feasible mask.
        rng: source of randomness.
        avoid: networks (`space.network`) that must not be returned.
        steps: at most so many moves.
        exchanges: at most so many of them change a unit that is no width, and widths for it.

    Returns:
        The best feasible mask on the way that is not to be avoided; None if there is none.
    """
    current, best = start, None if space.network(start) in avoid else start
    value = float(score(space.graph.matrix([start]))[0])
    best_value = value if best is not None else np.inf
    left, units, alone = steps, frozenset[int](), Alone()
    while left > 0:
        # the walk takes the best move even to a network to avoid, and only `best` passes over
        # those: a minimum that is known already leads to others around it
        fresh = not units or bool(space.graph.nested)  # of widths others lead after each move
        sides = space.gone(current), space.here(current)
        units = _leading(space, current, sides, score, rng) if fresh else units
        near = moves_of(space, current, sides, units, alone)
        moves: Sequence[Mask] = near
        values = score(near.rows) if near else np.empty(0)
        order = np.argsort(values, kind="stable")
        fits = near.allowed
        best, best_value = _first_new(space, near, values, order, avoid, best, best_value, fits)
        if len(near) >= _MOVES // 2 and (leap := _leap(space, near, values, value, score, left)):
            current, value, taken = leap
            left -= taken
            ends = [current], np.array([value]), [0]
            best, best_value = _first_new(space, *ends, avoid, best, best_value)
            continue
        step = next((int(i) for i in order if values[i] >= value or fits(int(i))), None)
        if not fresh and (step is None or values[step] >= value - 1e-12):
            units, alone = frozenset(), {}  # others may help now
            continue
        left -= 1
        if exchanges and (step is None or values[step] >= value - 1e-12):
            exchanges -= 1
            others = _exchanges(space, current, score)
            values = score(space.graph.matrix(others)) if others else np.empty(0)
            order = np.argsort(values, kind="stable")
            best, best_value = _first_new(space, others, values, order, avoid, best, best_value)
            step = int(order[0]) if len(order) else None
            moves = others
        if step is None or values[step] >= value - 1e-12:
            break
        current, value = moves[step], float(values[step])
    return best


def _exchanges(space: Space, mask: Mask, score: Score) -> list[Mask]:
    """Masks in which one unit that is no width changed, and widths were cut or put back for it.

    Which widths: by what each step alone changes of the score, relative to what it saves.
    """
    widths = space.graph.group_of
    coarse = [u for u in space.free if u not in widths]
    steps = [u for u in (*space.here(mask), *space.gone(mask)) if u in widths]
    if not steps or not coarse:
        return []
    value, *changes = score(space.graph.matrix([mask, *map(mask.flipped, steps)])).tolist()
    # what a step changes of the score for each unit of cost that it saves: those cut first that do
    # the least harm, those put back first that help the most
    gain = {u: space.price(u, abs(v - value)) for u, v in zip(steps, changes, strict=True)}
    more = sorted((u for u in steps if not mask.bits[u]), key=lambda u: gain[u])
    back = sorted((u for u in steps if mask.bits[u]), key=lambda u: -gain[u])
    found = []
    for unit in _promising(space, mask, score, coarse, float(np.median(list(gain.values())))):
        changed = mask.flipped(unit)
        if not space.connected(changed):
            continue
        changed = space.removing(changed, more * _ROUNDS)
        if space.allows(changed):
            found.append(space.refilled(changed, back * _ROUNDS))
    return found


def _promising(
    space: Space, mask: Mask, score: Score, coarse: Sequence[int], price: float
) -> list[int]:
    """The few units whose change is expected to pay, when widths save at this price."""
    values = score(space.graph.matrix([mask.flipped(unit) for unit in coarse]))
    saves = np.array([-space.saving(u) if mask.bits[u] else space.saving(u) for u in coarse])
    return [coarse[int(i)] for i in np.argsort(values - price * saves, kind="stable")[:_TRIED]]


def _first_new(
    space: Space, moves: Sequence[Mask], values: Array, order: Any, avoid: frozenset[int],
    best: Mask | None, best_value: float, fits: Callable[[int], bool] = lambda _: True,
) -> tuple[Mask | None, float]:  # fmt: skip
    """The best mask that fits and is not to be avoided, among these and the one so far."""
    for i in order:
        if values[i] >= best_value:
            break
        if fits(int(i)) and space.network(moves[i]) not in avoid:
            return moves[i], float(values[i])
    return best, best_value


def _leap(
    space: Space, moves: Moves, values: Array, value: float, score: Score, most: int
) -> tuple[Mask, float, int] | None:
    """The mask after several of the best moves at once, if it is feasible and better than one.

    With its score, and how many moves they are.

    Of 2, 4, 8, ... moves of different units: so descents take steps as the logarithm of what
    separates them from their end, not as many as that.
    """
    taken, chosen = set[int](), list[list[int]]()
    order = np.argsort(values, kind="stable")
    both = (values[order] < value) & (moves.swaps[order] != NONE).all(axis=1)
    for swap in moves.swaps[order[both]].tolist():
        if taken.isdisjoint(swap):
            taken.update(swap)
            chosen.append(swap)
    mask, found = moves.mask, list[Mask]()
    for count, swap in enumerate(chosen[:most], 1):
        mask = moved(mask, swap)
        if count > 1 and count & (count - 1) == 0:
            found.append(mask)
    if not found or any(space.graph.nest(m) != m for m in found):
        return None
    after = score(space.graph.matrix(found))
    best = int(np.argmin(after))
    if after[best] >= values.min() or not space.allows(found[best]):
        return None
    return found[best], float(after[best]), 2 ** (best + 1)


def _leading(
    space: Space, mask: Mask, sides: Sides, score: Score, rng: np.random.Generator
) -> frozenset[int]:
    """Where there are too many pairs, the units to put back and to remove that promise most.

    Those whose change by itself gains most, and those that gain most for their cost.
    """
    if (len(sides[0]) + 1) * (len(sides[1]) + 1) <= _MOVES:
        return frozenset()
    found = set[int]()
    for units in sides:
        some = units
        if len(units) > _DRAWN:
            some = np.sort(rng.choice(units, _DRAWN, replace=False)).tolist()
        flips = [(u, NONE) if mask.bits[u] else (NONE, u) for u in some]
        values = score(Moves(space, mask, np.array([(NONE, NONE), *flips])).rows)
        gains = zip(some, values[1:] - values[0], strict=True)
        prices = [space.price(unit, float(gain)) for unit, gain in gains]
        ranks = np.argsort(values[1:], kind="stable"), np.argsort(prices, kind="stable")
        best = dict.fromkeys(some[int(i)] for pair in zip(*ranks, strict=True) for i in pair)
        found.update(list(best)[:_LEADING])
    return frozenset(found)
