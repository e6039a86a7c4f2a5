"""Which surrogate to search with: candidates compared on masks that they have not seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .cross_validation import Make, hold_out

FIRST, GROWTH = 40, 1.5  # evaluations of the first comparison, and between comparisons


@dataclass(frozen=True)
class Choice:
    """Which candidate was chosen, and why.

    Args:
        name: of the candidate.
        scores: mean log predictive density of a held-out mask on the link scale, in nats, by
            candidate (higher is better); empty if there was too little to compare on.
        held: how many evaluations were held out.
    """

    name: str
    scores: Mapping[str, float]
    held: int

    @property
    def record(self) -> dict[str, Any]:
        """How the surrogate was chosen, as plain data; empty if nothing was compared."""
        if not self.scores:
            return {}
        scores = {name: round(score, 3) for name, score in self.scores.items()}
        return {"compared": {"log density": scores, "held-out masks": self.held}}


def choose(
    candidates: Mapping[str, Make], X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None
) -> Choice:
    """The candidate that predicts held-out masks best; the first one unless another is clearly so.

    The log density is a proper score: it asks for the uncertainty that a search lives on as much
    as for the mean (Gneiting & Raftery, "Strictly proper scoring rules", 2007). A candidate takes
    the place of the first one if it is better by more than a standard error of their difference.
    It is a pure function of its arguments, so that a resumed study chooses alike.

    Args:
        candidates: unfitted surrogates with an uncertainty, all of one link; the first is the one
            to stay with in doubt.
        X: masks [n_masks, n_units], 1 = removed; y: losses [n_masks] in original units.
        noise: [n_masks] their standard errors, which all candidates must take then.

    Raises:
        ValueError: malformed masks or losses; losses outside the domain of the link.
    """
    found = {name: hold_out(make, X, y, noise=noise) for name, make in candidates.items()}
    density = {name: held.log_density for name, held in found.items() if held is not None}
    first = next(iter(candidates))
    if not density:
        return Choice(first, {}, 0)

    def lead(name: str) -> float:
        """How much better than the first, less one standard error."""
        more = density[name] - density[first]
        return float(more.mean() - more.std(ddof=1) / np.sqrt(len(more)))

    best = max(density, key=lambda name: float(density[name].mean()))
    scores = {name: float(each.mean()) for name, each in density.items()}
    name = best if best == first or lead(best) > 0 else first
    return Choice(name, scores, len(density[first]))


def checkpoint(evaluations: int) -> int:
    """How many of the first evaluations a search chooses by: 40, then half as many again, …

    A comparison costs as much as some ten fits, so it is not made in every round. 0: too few.
    """
    size, last = FIRST, 0
    while size <= evaluations:
        size, last = int(size * GROWTH), size
    return last
