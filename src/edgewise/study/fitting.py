"""From evaluations to finalists: which surrogate, and which masks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import surrogates
from ..errors import PlanError
from ..evaluation.records import Evaluation
from ..graph.graph import Graph, Mask
from ..search import Point, Space
from ..search.asks import FitFunction
from ..search.proposals import Settings, propose
from ..surrogates.searcher import Searcher
from ..surrogates.selection import Choice, checkpoint, choose
from ..surrogates.validation import Link

log = logging.getLogger("edgewise")


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


def searching(searcher: Searcher, graph: Graph) -> FitFunction:
    """What fits a surrogate in every round of a search.

    Where there are several candidates they are compared again whenever there are half as many
    evaluations more, by those known then: the choice depends on nothing but the evaluations in
    their order.

    Args:
        searcher: the surrogate, or those to choose from.
        graph: the graph of the masks.
    """
    choices: dict[int, Choice] = {}

    def fit(evaluations: Sequence[Evaluation], space: Space) -> Any:
        X, y, link = _observations(evaluations)
        first = checkpoint(len(y))
        if first not in choices:
            choices[first] = _choose(searcher, graph, X[:first], y[:first], link)
            if choices[first].scores:
                log.info("Surrogate: %s", _told(choices[first]))
        return searcher.candidates[choices[first].name](graph, link).fit(X, y)

    return fit


def _observations(evaluations: Sequence[Evaluation]) -> tuple[NDArray[Any], NDArray[Any], Link]:
    """Masks, losses and link of the evaluations of the search split that gave a loss."""
    good = [e for e in evaluations if e.ok and e.split == "search"]
    X = np.array([[bit == "1" for bit in e.mask] for e in good], dtype=np.float64)
    y = np.array([e.loss for e in good], dtype=np.float64)
    return X, y, "log" if (y > 0).all() else "identity"


def _succeeded(
    evaluations: Sequence[Evaluation],
) -> tuple[NDArray[Any], NDArray[Any], Link]:
    """The observations, of which there are some; else PlanError."""
    X, y, link = _observations(evaluations)
    if not len(y):
        raise PlanError("No evaluation has succeeded yet; see study.evaluations for the reasons.")
    return X, y, link


def _choose(
    searcher: Searcher, graph: Graph, X: NDArray[Any], y: NDArray[Any], link: Link
) -> Choice:
    makers = {name: partial(make, graph, link) for name, make in searcher.candidates.items()}
    if len(makers) == 1 or not len(y):
        return Choice(next(iter(makers)), {}, 0)
    return choose(makers, X, y)


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
    X, y, link = _succeeded(good)
    choice = _choose(searcher, space.graph, X, y, link)
    model = searcher.candidates[choice.name](space.graph, link).fit(X, y)
    masks = {m: None for m in space.by_mask(good) if space.allows(m)}
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
    mean, std = model.predict(space.graph.matrix(found), return_std=True)
    order = np.argsort(mean, kind="stable")
    return Finalists(
        tuple(found[int(i)] for i in order),
        {found[int(i)]: (float(mean[i]), float(std[i])) for i in order},
        min(count, len(found)),
        choice,
        model,
    )


def fronted(
    space: Space, searcher: Searcher, evaluations: Sequence[Evaluation],
    find: Callable[..., Sequence[Point]],
) -> list[Point]:  # fmt: skip
    """The front of a surrogate fitted to evaluations; what is measured of its points is added.

    Args:
        space: graph and protected units.
        searcher: the surrogate, or those to choose from.
        evaluations: of the search split.
        find: gives points of a space and a surrogate, from `known` masks.

    Raises:
        PlanError: no evaluation succeeded.
    """
    good = space.by_mask(e for e in evaluations if e.ok and e.split == "search")
    X, y, link = _succeeded(evaluations)
    choice = _choose(searcher, space.graph, X, y, link)
    model = searcher.candidates[choice.name](space.graph, link).fit(X, y)
    points = find(space, model, known=list(good))
    losses = {mask: e.loss for mask, e in good.items()}
    return [replace(point, measured=losses.get(point.mask)) for point in points]


def graph_process(graph: Graph, evaluations: Sequence[Evaluation]) -> surrogates.GraphGP:
    """The Gaussian process on the graph, fitted to what was measured on the search split.

    Raises:
        PlanError: no evaluation succeeded.
    """
    X, y, link = _succeeded(evaluations)
    return surrogates.GraphGP(graph, link=link).fit(X, y)
