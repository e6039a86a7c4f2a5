"""The pairwise surrogate: every removed unit and every removed pair adds its own constant."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .gaussian_process import Posterior, Prior, fit_process
from .surrogate import Surrogate
from .threads import single_threaded
from .validation import Array, Link, check_observations, constant_std, is_constant, link_noise

SCALES = ((1.0, 1.0), (-1.0, 2.0), (-2.0, 2.0))  # of log variances: constant, units, pairs


class Degree2(Surrogate):
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

    def __init__(self, *, link: Link = "log") -> None:
        self.link = link

    @single_threaded
    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:
        """Fit to masks [n_masks, n_units] (1 = removed) and losses [n_masks].

        Args:
            noise: [n_masks] standard errors of the losses, where they are known.

        Raises:
            ValueError: malformed masks, losses or noise; losses outside the domain of the link.
        """
        masks, target = check_observations(X, y, self.link)
        self.n_features_in_ = masks.shape[1]
        self.shift_, self.scale_ = float(target.mean()), float(target.std())
        self.constant_std_ = constant_std(len(target))
        self.posterior_: Posterior | None = None
        if not is_constant(target):
            standard = (target - self.shift_) / self.scale_
            kernels = _kernels(masks @ masks.T)
            known = (link_noise(noise, y, self.link) / self.scale_) ** 2
            self.posterior_ = fit_process(masks, standard, kernels, Prior(SCALES), known)
        return self

    @single_threaded
    def _on_link(self, masks: Array, return_std: bool) -> Any:
        posterior = self.posterior_
        if posterior is None:
            mean, std = (np.full(len(masks), v) for v in (self.shift_, self.constant_std_))
            return (mean, std) if return_std else mean
        kernels = _kernels(masks @ posterior.masks.T)
        cross = posterior.covariance(masks, posterior.masks, kernels)
        mean = self.shift_ + self.scale_ * posterior.mean(cross)
        if not return_std:
            return mean
        prior = posterior.scales @ np.array(_kernels(masks.sum(axis=1)))
        return mean, self.scale_ * posterior.deviation(prior, cross)


def _kernels(common: Array) -> list[Array]:
    """Constant, units and pairs, from the number of removed units in common."""
    return [np.ones_like(common), common, 0.5 * common * (common - 1.0)]
