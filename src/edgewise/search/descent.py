"""Finding masks of low predicted loss: steepest descent over swaps, within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Mask
from .space import Space

Array = np.ndarray[Any, np.dtype[np.float64]]
Score = Callable[[Array], Array]
_MOVES = 1024


def descend(
    space: Space,
    score: Score,
    start: Mask,
    *,
    rng: np.random.Generator,
    avoid: frozenset[int] = frozenset(),
    steps: int = 100,
) -> Mask | None:
    """The local minimum of a score that steepest descent reaches from a feasible mask.

    Moves put one removed unit back, remove one more, or do both; at most 1 024 a step, drawn at
    random where there are more. A move that leaves the budget or disconnects is never taken.

    Args:
        space: the feasible masks.
        score: predicted badness of masks given as [n, units] (1 = removed); lower is better.
        start: a feasible mask.
        rng: source of randomness.
        avoid: networks (`space.network`) that must not be returned.
        steps: at most so many moves.

    Returns:
        The best feasible mask on the way that is not to be avoided; None if there is none.
    """
    current, best = start, None if space.network(start) in avoid else start
    value = float(score(space.graph.matrix([start]))[0])
    best_value = value if best is not None else np.inf
    for _ in range(steps):
        moves = _moves(space, current, rng)
        if not moves:
            break
        values = score(space.graph.matrix(moves))
        order = np.argsort(values, kind="stable")
        best, best_value = _first_new(space, moves, values, order, avoid, best, best_value)
        step = next((int(i) for i in order if values[i] >= value or space.allows(moves[i])), None)
        if step is None or values[step] >= value - 1e-12:
            break
        current, value = moves[step], float(values[step])
    return best


def _first_new(
    space: Space, moves: Sequence[Mask], values: Array, order: Any, avoid: frozenset[int],
    best: Mask | None, best_value: float,
) -> tuple[Mask | None, float]:  # fmt: skip
    """The best feasible mask that is not to be avoided, among these and the one so far."""
    for i in order:
        if values[i] >= best_value:
            break
        if space.allows(moves[i]) and space.network(moves[i]) not in avoid:
            return moves[i], float(values[i])
    return best, best_value


def _moves(space: Space, mask: Mask, rng: np.random.Generator) -> list[Mask]:
    gone = [u for u in space.free if mask.bits[u]]
    here = [u for u in space.free if not mask.bits[u]]
    swaps = [(back, more) for back in [None, *gone] for more in [None, *here]][1:]
    if len(swaps) > _MOVES:
        chosen = rng.choice(len(swaps), _MOVES, replace=False)
        swaps = [swaps[int(i)] for i in chosen]
    return [_moved(mask, back, more) for back, more in swaps]


def _moved(mask: Mask, back: int | None, more: int | None) -> Mask:
    mask = mask if back is None else mask.with_kept(back)
    return mask if more is None else mask.with_removed(more)
