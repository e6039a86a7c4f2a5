"""From evaluations to finalists: which surrogate, and which masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError
from ..evaluation.records import Evaluation
from ..graph.graph import Graph, Mask
from ..search import Space
from ..search.asks import FitFunction
from ..search.proposals import Settings, propose
from ..surrogates.searcher import SLOW, Searcher
from ..surrogates.selection import Choice, checkpoint, choose
from ..surrogates.validation import Link

log = logging.getLogger("edgewise")
MOST = 400  # evaluations that a surrogate is fitted to, besides single removals
COMPARED = 160  # that candidates are compared on, likewise
NEAR = 0.25  # of what a budget asks to be saved: masks that save so much more or less are near it
LARGEST = 40  # units, beyond which "auto" does without what takes time for each of them
ROWS = 2048  # masks predicted at a time


@dataclass(frozen=True)
class Finalists:
    """Candidates and the fitted surrogate with what it thinks of them.

    Args:
        masks: best first.
        expected: their predicted losses and deviations.
        count: how many of them are to be tried on fresh data.
        choice: of the surrogate.
        model: the surrogate.
    """

    masks: tuple[Mask, ...]
    expected: dict[Mask, tuple[float, float]]
    count: int
    choice: Choice
    model: Any

    @property
    def losses(self) -> list[float]:
        """The predicted losses of the masks."""
        return [self.expected[mask][0] for mask in self.masks]

    def expects(self, mask: Mask) -> tuple[float, float]:
        """The predicted loss and deviation of a mask, be it among them or not."""
        if mask in self.expected:
            return self.expected[mask]
        mean, std = self.model.predict(np.array([mask.bits], float), return_std=True)
        return float(mean[0]), float(std[0])


def searching(searcher: Searcher) -> FitFunction:
    """What fits a surrogate in every round of a search.

    Where there are several candidates they are compared again whenever there are half as many
    evaluations more, by those known then: the choice depends on nothing but the evaluations in
    their order.

    Args:
        searcher: the surrogate, or those to choose from.
    """
    choices: dict[int, tuple[Choice, Any]] = {}

    def fit(evaluations: Sequence[Evaluation], space: Space) -> Any:
        data = Observations.of(evaluations, space)
        first = checkpoint(len(data.y))
        if first not in choices:
            choice = chosen(searcher, data)
            if choice.scores:
                log.info("Surrogate: %s", _told(choice))
            choices[first] = choice, data.fitted(searcher, choice)
        choice, model = choices[first]
        if first and hasattr(model, "updated"):  # its few numbers hold until the next comparison
            return model.updated(data.X, data.y, data.noise)
        return data.fitted(searcher, choice)

    return fit


@dataclass(frozen=True)
class Observations:
    """What a surrogate learns from: the evaluations that matter at a budget.

    Args:
        space: in which they matter.
        X: masks [n, n_units]; y: their losses [n]; noise: standard errors of these [n].
        link: that suits the losses.
    """

    space: Space
    X: NDArray[Any]
    y: NDArray[Any]
    noise: NDArray[Any]
    link: Link

    @staticmethod
    def of(evaluations: Sequence[Evaluation], space: Space) -> Observations:
        """Those of the search split that gave a loss.

        Where there are more than MOST, besides single removals, the best of those near to the
        budget, then the nearest others. A fit takes time cubic in their number.
        """
        good = [e for e in evaluations if e.ok and e.split == "search"]
        X = np.array([[bit == "1" for bit in e.mask] for e in good], dtype=np.float64)
        X = X.reshape(len(good), len(space.graph.units))
        y, noise = np.array([(e.loss, e.noise) for e in good], np.float64).reshape(-1, 2).T
        link: Link = "log" if (y > 0).all() else "identity"
        return Observations(space, X, y, noise, link).nearest(MOST)

    def nearest(self, most: int) -> Observations:
        """Single removals, and so many of the others; see `of`."""
        alone = self.X.sum(axis=1) < 2
        rest = np.flatnonzero(~alone)
        if len(rest) <= most:
            return self
        each = 1.0 / self.space.limits.get("units", np.inf)  # what a unit saves of this budget
        units = range(self.X.shape[1])
        saved = self.X[rest] @ np.array([self.space.saving(u) + each for u in units])
        excess = self.space.excess(self.space.graph.empty)
        gap = np.abs(saved - excess)
        far = gap > NEAR * abs(excess)
        best = rest[np.lexsort((np.where(far, gap, self.y[rest]), far))[:most]]
        rows = np.sort(np.concatenate([np.flatnonzero(alone), best]))
        return replace(self, X=self.X[rows], y=self.y[rows], noise=self.noise[rows])

    def fitted(self, searcher: Searcher, choice: Choice) -> Any:
        """A surrogate fitted to them."""
        model = searcher.candidates[choice.name](self.space.graph, self.link)
        return model.fit(self.X, self.y, **({"noise": self.noise} if self.noise.any() else {}))

    @property
    def required(self) -> Observations:
        """These, of which there are some.

        Raises:
            PlanError: there are none.
        """
        if not len(self.y):
            raise PlanError(
                "No evaluation has succeeded yet; see study.evaluations for the reasons."
            )
        return self


def chosen(searcher: Searcher, data: Observations) -> Choice:
    """The surrogate, or the likeliest of several; slow ones are left out where units are many."""
    graph = data.space.graph
    quick = len(graph.units) > LARGEST or data.noise.any()  # many masks of some examples each
    names = [n for n in searcher.candidates if not (quick and n in SLOW)]
    names = names or list(searcher.candidates)
    makers = {n: partial(searcher.candidates[n], graph, data.link) for n in names}
    if len(makers) == 1 or not len(data.y):
        return Choice(next(iter(makers)), {}, 0)
    some = data.nearest(COMPARED)
    return choose(makers, some.X, some.y, some.noise if some.noise.any() else None)


def predicted(model: Any, graph: Graph, masks: Sequence[Mask]) -> tuple[list[float], list[float]]:
    """What a surrogate expects masks to lose, and its deviations; worked out in blocks."""
    mean, std = list[float](), list[float]()
    for first in range(0, len(masks), ROWS):
        block = model.predict(graph.matrix(masks[first : first + ROWS]), return_std=True)
        mean, std = mean + block[0].tolist(), std + block[1].tolist()
    return mean, std


def _told(choice: Choice) -> str:
    scores = ", ".join(f"{name} {score:.3f}" for name, score in choice.scores.items())
    return f"{choice.name} (log density of {choice.held} held-out masks: {scores})"


def shortlist(
    space: Space, searcher: Searcher, evaluations: Sequence[Evaluation], count: int, seed: int
) -> Finalists:
    """The masks that may be verified, ordered by the surrogate's posterior, measured or proposed.

    A measured loss is one draw on few samples, and the lowest of many is too good to be true;
    the posterior shrinks it towards what similar masks gave.

    Raises:
        PlanError: no evaluation succeeded.
    """
    good = [e for e in evaluations if e.ok]
    data = Observations.of(good, space).required
    choice = chosen(searcher, data)
    model = data.fitted(searcher, choice)
    known = (space.graph.mask(bits=row) for row in data.X.astype(bool))
    whole = {e.mask for e in good if not e.noise}  # what saw some examples only may not win
    masks = {mask: None for mask in known if str(mask) in whole and space.allows(mask)}
    if len(masks) < count:
        settings = Settings(round=count, explore=0.0)
        rng = np.random.default_rng([seed, len(good)])
        extra = propose(space, model, space.by_mask(evaluations), settings, rng)
        masks |= dict.fromkeys(extra)
    if not masks:
        raise PlanError(
            f"No mask within the budget ({space.budget}) was found; run() with it first."
        )
    found = list(dict.fromkeys(map(space.minimal, masks)))  # as a person would say them
    mean, std = predicted(model, space.graph, found)
    order = np.argsort(mean, kind="stable")
    return Finalists(
        tuple(found[int(i)] for i in order),
        {found[int(i)]: (mean[i], std[i]) for i in order},
        min(count, len(found)),
        choice,
        model,
    )
