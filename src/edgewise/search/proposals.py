"""The next round of masks: descents on what a surrogate predicts, near to what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from .local_search import Array, descend
from .sampling import sample_at_budget
from .space import Space

STARTS = 3  # of the best masks, from which a proposal within a region starts


class Predictor(Protocol):
    """A fitted surrogate: mean and standard deviation on its link scale."""

    def predict_link(self, X: Array, return_std: bool = False) -> Any: ...


@dataclass(frozen=True)
class Settings:
    """How a search spends its evaluations.

    Args:
        chain: share of the evaluations left after single removals that greedy removal may take.
        samples: random masks at the budget before the first surrogate; half of them after a greedy
            removal, and a quarter where evaluations at another budget are known.
        guided: share of them drawn around the single pick instead of uniformly; all of them
            where there are widths.
        round: masks proposed at a time.
        explore: share of a round that is proposed with great optimism.
        starts: descents for each proposal.
        optimism: deviations that a proposal subtracts from the predicted mean, as the scale of a
            half-normal draw.
        boldness: deviations that an exploring proposal subtracts.
    """

    chain: float = 0.75
    samples: int = 20
    guided: float = 0.75
    round: int = 4
    explore: float = 0.2
    starts: int = 6
    optimism: float = 0.5
    boldness: float = 2.0


@dataclass
class Region:
    """How far proposals may go from what is measured, in moves; only widths need a limit.

    There are so many masks with widths that some are mispredicted to be excellent, and without a
    limit these are all that is proposed.
    """

    moves: int = 8
    least: int = 2
    most: int = 64

    @property
    def exchanges(self) -> int:
        """How many of the moves may change widths all over the network to make up for a branch."""
        return max(self.moves // 8, 1)

    def learn(self, improved: bool) -> None:
        """Go further after a round that found something better, less far after one that did not."""
        self.moves = (
            min(self.moves * 2, self.most) if improved else max(self.moves // 2, self.least)
        )


EVERYWHERE = Region(moves=100)


def propose(
    space: Space,
    model: Predictor,
    known: Mapping[Mask, Evaluation],
    settings: Settings,
    rng: np.random.Generator,
    region: Region | None = None,
) -> list[Mask]:
    """The next round of masks; with widths, within a region around the best ones measured."""
    region = region or Region()
    losses = feasible(space, known)
    top = sorted(losses, key=lambda mask: losses[mask])[:5]
    seen = set(map(space.network, known))
    chosen: list[Mask] = []
    explore = round(settings.round * settings.explore)
    for number in range(settings.round):
        bold = number < explore
        optimism = settings.boldness if bold else settings.optimism * abs(float(rng.normal()))
        if space.graph.nested and top:
            starts, limits = [top[i] for i in rng.permutation(len(top))[:STARTS]], region
        else:
            starts, limits = ([top[int(rng.integers(len(top)))]] if top else []), EVERYWHERE
            starts += sample_at_budget(space, settings.starts - len(starts), rng)
        mask = _propose_one(space, model, starts, frozenset(seen), optimism, rng, limits)
        if mask is not None:
            chosen.append(mask)
            seen.add(space.network(mask))
    return chosen or sample_at_budget(space, settings.round, rng, frozenset(seen))


def feasible(space: Space, known: Mapping[Mask, Evaluation]) -> dict[Mask, float]:
    """The losses of the masks within the budget that could be measured."""
    measured = ((mask, e.loss) for mask, e in known.items() if e.ok)
    return {m: loss for m, loss in measured if loss is not None and space.allows(m)}


def _propose_one(
    space: Space, model: Predictor, starts: Sequence[Mask], seen: frozenset[int], optimism: float,
    rng: np.random.Generator, region: Region,
) -> Mask | None:  # fmt: skip
    """The unseen mask that descent on an optimistic prediction finds from several starts."""

    def score(X: Array) -> Array:
        mean, std = model.predict_link(X, return_std=True)
        return np.asarray(mean - optimism * std)

    limits = {"steps": region.moves, "exchanges": region.exchanges}
    ends = [descend(space, score, start, rng=rng, avoid=seen, **limits) for start in starts]
    found = [mask for mask in ends if mask is not None]
    if not found:
        return None
    values = score(space.graph.matrix(found))
    return found[int(np.argmin(values))]
