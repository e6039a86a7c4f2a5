"""Greedy removal with few evaluations: a good first mask, and what is learnt on the way to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from .space import Space

TOGETHER = 5  # units measured again at a time, at most
LEAST = 3  # evaluations for each removal, below which a chain does not get far
TINY = 1e-9  # harm of a removal that does none: what saves most goes first


def harm_of(removal: Evaluation, before: float) -> float:
    """What a removal adds to the loss before it; inf where it cannot be measured."""
    return float("inf") if removal.loss is None else removal.loss - before


def by_price(space: Space, units: Iterable[int], harm: Mapping[int, float]) -> list[int]:
    """Units in the order of their harm relative to what each saves, the cheapest first."""
    return sorted(units, key=lambda u: space.price(u, max(harm[u], 0.0) + TINY))


def chain(
    space: Space, known: Mapping[Mask, Evaluation], harm: Mapping[int, float], removals: int,
    most: int,
) -> Iterator[Sequence[Mask]]:  # fmt: skip
    """Remove one unit after the other, measuring only the likely ones again after each removal.

    The accelerated greedy algorithm (Minoux, "Accelerated greedy algorithms for maximizing
    submodular set functions", 1978): the more is removed, the more harm a further removal mostly
    does, so that a unit whose harm is known of now, and is the least, is the one to remove. Since
    a removal may also undo the harm of another one, several units are measured again at a time.

    Args:
        space: the feasible masks.
        known: evaluations by mask, to which the caller adds the answers.
        harm: what the removal of each unit alone adds to the loss.
        removals: about how many it takes to meet the budget.
        most: masks asked for, known ones not counted; with less than three for each removal
            nothing is.

    Yields:
        Masks whose evaluations are needed next.
    """
    together = min(TOGETHER, most // max(removals, 1))
    if together < LEAST:
        return
    harm, fresh, mask = dict(harm), set(harm), space.graph.empty
    gone: list[int] = []
    while space.excess(mask) > 0:
        order = by_price(space, _removable(space, mask, harm), harm)
        if not order:
            return
        if order[0] in fresh:
            mask, fresh = mask.with_removed(order[0]), set()
            gone.append(order[0])
            continue
        likely = [u for u in order if u not in fresh][:together]
        masks = [mask.with_removed(u) for u in likely]
        most -= sum(_known(space, known, m) is None for m in masks)
        if most < 0:
            yield [space.removing(mask, order)]
            return
        yield masks
        before, after = _known(space, known, mask), [_known(space, known, m) for m in masks]
        if before is None or before.loss is None or None in after:
            return
        harm |= {u: harm_of(e, before.loss) for u, e in zip(likely, after, strict=True) if e}
        fresh |= set(likely)
    yield [space.refilled(mask, reversed(gone))]


def _removable(space: Space, mask: Mask, harm: Mapping[int, float]) -> list[int]:
    return [u for u in space.here(mask) if u in harm and space.connected(mask.with_removed(u))]


def _known(space: Space, known: Mapping[Mask, Evaluation], mask: Mask) -> Evaluation | None:
    return known.get(space.minimal(mask))
