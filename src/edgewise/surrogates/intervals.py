"""Intervals that hold: predicted standard deviations scaled by what held-out masks say."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .cross_validation import LEAST, Make, hold_out
from .validation import Array, from_link


@dataclass(frozen=True)
class Intervals:
    """A fitted surrogate with conformal intervals.

    They hold for masks drawn like those it was calibrated on and not evaluated yet; not for a
    mask that was chosen for its prediction, which is likely to be one that is predicted too well.
    Of a chosen mask believe a measurement on fresh data only.

    Args:
        model: the surrogate, fitted to all evaluations.
        residuals: [n_held] of held-out masks, in predicted standard deviations, sorted.
    """

    model: Any
    residuals: Array

    def factor(self, level: float) -> float:
        """How many predicted standard deviations make an interval that covers `level`.

        The ⌈(n + 1) · level⌉-th smallest of n held-out residuals (Papadopoulos et al., "Inductive
        confidence machines for regression", 2002; normalised by the predicted deviation).

        Raises:
            ValueError: a level outside of (0, 1), or nearer to 1 than n residuals can tell.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"0 < level < 1 must hold, but got {level}.")
        rank = int(np.ceil((len(self.residuals) + 1) * level))
        if rank > len(self.residuals):
            raise ValueError(
                f"{len(self.residuals)} held-out masks cannot tell an interval of level {level}: "
                f"{int(np.ceil(level / (1.0 - level)))} are needed."
            )
        return float(self.residuals[rank - 1])

    def predict(self, X: ArrayLike, level: float = 0.8) -> tuple[Array, Array]:
        """The ends (low, high), each [n_masks], of intervals in original units.

        Raises:
            ValueError: malformed masks; a level that cannot be had (see `factor`).
        """
        width = self.factor(level)
        mean, std = self.model.predict_link(X, return_std=True)
        link = self.model.link
        return from_link(mean - width * std, link), from_link(mean + width * std, link)


def calibrate(make: Make, X: ArrayLike, y: ArrayLike) -> Intervals:
    """A fitted surrogate whose intervals cover held-out masks as often as they say.

    Args:
        make: an unfitted surrogate with an uncertainty.
        X: masks [n_masks, n_units], 1 = removed; y: losses [n_masks] in original units.

    Raises:
        ValueError: malformed masks or losses, or fewer than 20 different masks that remove at
            least two units.

    Examples:
        >>> found = ew.surrogates.calibrate(lambda: ew.surrogates.GraphGP(graph), X, losses)
        >>> low, high = found.predict(candidates, level=0.8)
        >>> bool((low < high).all())
        True
    """
    held = hold_out(make, X, y)
    if held is None:
        raise ValueError(
            f"Intervals need at least {LEAST} different masks that remove two units or more."
        )
    return Intervals(make().fit(X, y), np.sort(held.residuals))
