"""A scikit-learn regressor of a standardised target; a constant where there is no spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import has_fit_parameter

from .validation import Array, constant_std, is_constant

UNKNOWN = 0.05


@dataclass(frozen=True)
class Regressor:
    """target = shift + scale · model(masks); without a model the shift is all there is.

    Args:
        shift, scale: mean and standard deviation of the training target.
        model: a fitted scikit-learn regressor of the standardised target; None if the target was
            constant.
        constant_std: standard deviation of a prediction without a model.
    """

    shift: float
    scale: float
    model: Any
    constant_std: float

    @staticmethod
    def fit(model: Any, masks: Array, target: Array, known: Array | float = 0.0) -> Regressor:
        """Fit a scikit-learn regressor, whose defaults suit a target of unit variance.

        Args:
            model: not fitted yet.
            masks: [n, n_units]; target: [n] on the link scale.
            known: [n] variances of known noise. A regressor that weighs its samples trusts each
                by it, beside an error of UNKNOWN of the target's variance that all have.
        """
        shift, scale = float(target.mean()), float(target.std())
        if is_constant(target):
            return Regressor(shift, scale, None, constant_std(len(target)))
        wanted, weights = (target - shift) / scale, {}
        if np.any(known) and has_fit_parameter(model, "sample_weight"):
            error = UNKNOWN * scale**2
            weights = {"sample_weight": np.broadcast_to(error / (error + known), target.shape)}
        with np.errstate(all="ignore"):
            fitted = model.fit(masks, wanted, **weights)
        if weights and not _sound(fitted):
            fitted = model.fit(masks, wanted)
        return Regressor(shift, scale, fitted, constant_std(len(target)))

    def predict(self, masks: Array) -> Array:
        """[n_masks] on the link scale."""
        if self.model is None or not len(masks):
            return np.full(len(masks), self.shift)
        return np.asarray(self.shift + self.scale * self.model.predict(masks))

    def std(self, masks: Array) -> Array:
        """[n_masks] standard deviations, of a regressor that has them."""
        if self.model is None or not len(masks):
            return np.full(len(masks), self.constant_std)
        return np.asarray(self.scale * self.model.predict(masks, return_std=True)[1])


def _sound(model: Any) -> bool:
    """Whether the precisions of a Bayesian regressor, if it has some, are above 0.

    Those of scikit-learn's are a ratio of rounding errors where the weights of few samples differ
    by orders of magnitude, and its predictions then are far from what it was fitted to.
    """
    return bool(getattr(model, "alpha_", 1.0) > 0 and getattr(model, "lambda_", 1.0) > 0)
