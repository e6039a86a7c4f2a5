"""The pairwise surrogate: every removed unit and every removed pair adds its own constant."""

import numpy as np

from .gaussian_process import Posterior, Prior, fit_process
from .kernels import product
from .process import Process
from .validation import Array

SCALES = ((1.0, 1.0), (-1.0, 2.0), (-2.0, 2.0))  # of log variances: constant, units, pairs


class Degree2(Process):
    """Bayesian ridge regression on all units and all pairs of units, as a Gaussian process.

    With a normal prior on every coefficient the covariance of two masks that have c removed units
    in common is v₀ + v₁ · c + v₂ · c(c - 1)/2, so that no pair is ever written down. The three
    variances and the noise maximise marginal likelihood times weak priors.

    Args:
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".

    Attributes:
        posterior_: the fitted process, for a standardised target; None if losses were constant.

    Examples:
        >>> model = ew.surrogates.Degree2().fit(X, losses)
        >>> model.predict(candidates).shape
        (4,)
    """

    def _process(self, masks: Array, target: Array, known: Array) -> Posterior:
        return fit_process(masks, target, self._kernels(masks, masks), Prior(SCALES), known)

    def _kernels(self, X: Array, Z: Array) -> list[Array]:
        return _of_common(X @ Z.T)

    def _given(self, masks: Array, posterior: Posterior) -> Array:
        constant, units, pairs = posterior.scales
        common = product(masks, posterior.masks.T)
        return np.asarray(constant + common * (units + 0.5 * pairs * (common - 1.0)))

    def _diagonal(self, masks: Array) -> list[Array]:
        return _of_common(masks.sum(axis=1))


def _of_common(common: Array) -> list[Array]:
    """Constant, units and pairs, from the number of removed units in common."""
    return [np.ones_like(common), common, 0.5 * common * (common - 1.0)]
