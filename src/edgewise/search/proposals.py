"""The next round of masks: descents on what a surrogate predicts, near to what is known."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from .local_search import Array, Score, descend
from .sampling import sample_at_budget
from .space import Space

STARTS, NEAR = 5, 3  # of the best masks, from which proposals start; from so many within a region
MUTATIONS, TRIES, MUTANTS = 3, 400, 32  # exchanges at most, attempts, masks to choose from


class Predictor(Protocol):
    """A fitted surrogate: mean and standard deviation, in original units or on its link scale."""

    def predict(self, X: Array, return_std: bool = False) -> Any: ...

    def predict_link(self, X: Array, return_std: bool = False) -> Any: ...


@dataclass(frozen=True)
class Settings:
    """How a search spends its evaluations.

    Args:
        sizes: whether evaluations may see some of the examples only.
        few: of the evaluations, as which so many single removals see all examples.
        last: share of the evaluations that only complete masks that saw a part of the examples.
        scored: share of the evaluations that masks of scores may take, one in any case.
        samples: random masks at the budget before the first surrogate; a quarter of them where
            evaluations at another budget are known.
        beside: of them after each round, where not all come first.
        guided: share of them drawn around the single pick instead of uniformly; all of them
            where there are widths.
        round: masks proposed at a time.
        explore: share of a round that is proposed with great optimism.
        mutated: share of a round that is the best of mutations.
        starts: descents for each proposal.
        optimism: deviations that a proposal subtracts from the predicted mean, as the scale of a
            half-normal draw.
        boldness: deviations that an exploring proposal subtracts.
    """

    sizes: bool = True
    few: float = 0.25
    last: float = 0.05
    scored: float = 0.1
    samples: int = 20
    beside: int = 2
    guided: float = 0.75
    round: int = 4
    explore: float = 0.2
    mutated: float = 0.25
    starts: int = 3
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
    """The next round of masks; with widths, within a region around the best ones measured.

    Most are the end of descents on what the surrogate hopes for, each with another optimism, from
    masks expected to be good and from random ones. The others are, of many mutations of the good
    ones, those for which it hopes most.
    """
    region = region or Region()
    top = ranked(space, model, known)[:STARTS]
    seen = set(map(space.network, known))
    chosen: list[Mask] = []
    explore, mutated = (round(settings.round * s) for s in (settings.explore, settings.mutated))
    for number in range(settings.round):
        bold = number < explore
        optimism = settings.boldness if bold else settings.optimism * abs(float(rng.normal()))
        hope = partial(_hope, model, optimism)
        if top and number >= settings.round - mutated and not space.graph.nested:
            parent = top[min(int(rng.geometric(0.5)) - 1, len(top) - 1)]
            mask = _best(space, hope, list(islice(mutants(space, parent, seen, rng), MUTANTS)))
        else:
            if space.graph.nested and top:
                starts, limits = [top[i] for i in rng.permutation(len(top))[:NEAR]], region
            else:
                starts, limits = ([top[int(rng.integers(len(top)))]] if top else []), EVERYWHERE
                starts += sample_at_budget(space, settings.starts - len(starts), rng)
            steps = {"steps": limits.moves, "exchanges": limits.exchanges}
            avoid = frozenset(seen)
            ends = [descend(space, hope, start, rng=rng, avoid=avoid, **steps) for start in starts]
            mask = _best(space, hope, [end for end in ends if end is not None])
        if mask is not None:
            chosen.append(mask)
            seen.add(space.network(mask))
    return chosen or sample_at_budget(space, settings.round, rng, frozenset(seen))


def ranked(space: Space, model: Predictor, known: Mapping[Mask, Evaluation]) -> list[Mask]:
    """The masks within the budget that could be measured, those expected to be best first."""
    masks = sorted(feasible(space, known), key=lambda mask: mask.bits)
    mean = model.predict_link(space.graph.matrix(masks)) if masks else []
    return [masks[int(i)] for i in np.argsort(mean, kind="stable")]


def mutants(
    space: Space, parent: Mask, seen: Collection[int], rng: np.random.Generator
) -> Iterator[Mask]:
    """Masks at the budget one to three exchanges from a parent, whose networks are not seen."""
    own = set(seen)
    for _ in range(TRIES):
        mask = parent
        for _ in range(int(min(rng.integers(1, MUTATIONS + 1, 2)))):
            gone = space.gone(mask)
            if gone:
                mask = mask.with_kept(gone[int(rng.integers(len(gone)))])
        order = [int(u) for u in rng.permutation(space.free) if not mask.bits[u]]
        mask = space.removing(mask, [u for u in order if not parent.bits[u]] + order)
        if not space.allows(mask):
            continue
        mask = space.refilled(mask, order[::-1])
        if space.network(mask) not in own:
            own.add(space.network(mask))
            yield mask


def feasible(space: Space, known: Mapping[Mask, Evaluation]) -> dict[Mask, float]:
    """The losses of the masks within the budget that could be measured."""
    measured = ((mask, e.loss) for mask, e in known.items() if e.ok)
    return {m: loss for m, loss in measured if loss is not None and space.allows(m)}


def _hope(model: Predictor, optimism: float, X: Array) -> Array:
    """[n] what an optimist expects of masks."""
    mean, std = model.predict_link(X, return_std=True)
    return np.asarray(mean - optimism * std)


def _best(space: Space, hope: Score, masks: Sequence[Mask]) -> Mask | None:
    return masks[int(np.argmin(hope(space.graph.matrix(masks))))] if masks else None
