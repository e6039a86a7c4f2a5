"""What a surrogate predicts of masks that it has not seen: the measure for all comparisons."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .validation import Array, check_observations, link_noise

FOLDS = 4  # parts, each predicted by a surrogate that saw everything else
LEAST = 20  # held-out masks below which a comparison says nothing

Make = Callable[[], Any]


@dataclass(frozen=True)
class HeldOut:
    """Cross-fitted predictions on the link scale.

    Args:
        target, mean, std: [n_held] of each evaluation that was held out once.
    """

    target: Array
    mean: Array
    std: Array

    @property
    def residuals(self) -> Array:
        """[n_held] |target - mean| in predicted standard deviations."""
        return np.abs(self.target - self.mean) / self.std

    @property
    def log_density(self) -> Array:
        """[n_held] log of the predicted normal density at the target, in nats."""
        return np.asarray(-0.5 * self.residuals**2 - np.log(self.std) - 0.5 * np.log(2.0 * np.pi))


def spared(masks: Array) -> NDArray[np.bool_]:
    """[n_masks] whether a mask may be held out: it removes at least two units.

    The empty mask and those of single units are what every search starts with, so that no
    surrogate will ever predict them.
    """
    return np.asarray(masks.sum(axis=1) >= 2)


def hold_out(
    make: Make, X: ArrayLike, y: ArrayLike, *, noise: ArrayLike | None = None
) -> HeldOut | None:
    """Cross-fitted predictions of the masks that remove at least two units.

    A pure function of its arguments. Repeated masks are in the same fold.

    Args:
        make: an unfitted surrogate with an uncertainty.
        X: masks [n_masks, n_units], 1 = removed; y: losses [n_masks] in original units.
        noise: [n_masks] standard errors of the losses; the surrogates must take them then.

    Returns:
        None with fewer than 20 different masks to hold out.

    Raises:
        ValueError: malformed masks or losses; losses outside the domain of the link.
    """
    model = make()
    masks, target = check_observations(X, y, model.link)
    fold = _folds(masks)
    if fold is None:
        return None
    losses = np.asarray(y, dtype=np.float64)
    known = np.asarray(noise, dtype=np.float64)
    mean, std = np.zeros(len(target)), np.zeros(len(target))
    for k in range(FOLDS):
        out = fold == k
        model = make().fit(masks[~out], losses[~out], *([] if noise is None else [known[~out]]))
        mean[out], std[out] = model.predict_link(masks[out], return_std=True)
    held = fold >= 0
    std = np.hypot(std, link_noise(noise, losses, model.link))
    return HeldOut(target[held], mean[held], std[held])


def _folds(masks: Array) -> NDArray[np.intp] | None:
    """[n_masks] the fold in which a mask is held out; -1: never."""
    fold = np.full(len(masks), -1, dtype=np.intp)
    held = spared(masks)
    different, which = np.unique(masks[held], axis=0, return_inverse=True)
    if len(different) < LEAST:
        return None
    # neighbours in the order of masks are alike: a random order spreads them over the folds
    dealt = np.random.default_rng(0).permutation(len(different)) % FOLDS
    fold[held] = dealt[which.ravel()]
    return fold
