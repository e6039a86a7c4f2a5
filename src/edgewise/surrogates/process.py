"""Surrogates that are Gaussian processes on a standardised target."""

from typing import Any

import numpy as np

from .gaussian_process import Posterior
from .surrogate import Probabilistic
from .validation import Array, constant_std, is_constant


class Process(Probabilistic):
    """A Gaussian process over masks; a constant where losses have no spread.

    What differs between them is how hyper-parameters are found, and their kernels.

    Attributes:
        posterior_: the fitted process, for a standardised target; None if losses were constant.
        noise_: deviation of what is left beside the known noise, on the link scale.
    """

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        self.shift_, self.scale_ = float(target.mean()), float(target.std())
        self.constant_std_ = self.noise_ = constant_std(len(target))
        self.posterior_: Posterior | None = None
        if not is_constant(target):
            standard, known = (target - self.shift_) / self.scale_, (noise / self.scale_) ** 2
            self.posterior_ = self._process(masks, standard, known)
            self.noise_ = float(np.sqrt(self.posterior_.noise)) * self.scale_

    def _process(self, masks: Array, target: Array, known: Array) -> Posterior:
        """The process fitted to a standardised target with known variances, each [n_masks]."""
        raise NotImplementedError

    def _kernels(self, X: Array, Z: Array) -> list[Array]:
        """The given kernels between masks X and Z, each [n_X, n_Z]."""
        raise NotImplementedError

    def _diagonal(self, masks: Array) -> list[Array]:
        """The given kernels of each mask with itself, each [n_masks]."""
        raise NotImplementedError

    def _cross(self, masks: Array, posterior: Posterior) -> Array:
        """[n_masks, n] covariance of the latent function with the training masks."""
        total = self._given(masks, posterior)
        for between in posterior.toward:
            total += between(masks)
        return total

    def _given(self, masks: Array, posterior: Posterior) -> Array:
        """[n_masks, n] the sum of the given kernels with the training masks, a fresh array."""
        return posterior.given(self._kernels(masks, posterior.masks))

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        posterior = self.posterior_
        if posterior is None:
            mean, std = (np.full(len(masks), v) for v in (self.shift_, self.constant_std_))
            return (mean, std) if return_std else mean
        cross = self._cross(masks, posterior)
        mean = self.shift_ + self.scale_ * posterior.mean(cross)
        if not return_std:
            return mean
        # k(x, x) less what the data explain of it, ‖L⁻¹ k(x, training masks)‖²
        diagonal = np.array(self._diagonal(masks))
        prior = posterior.scales[: len(diagonal)] @ diagonal
        prior = prior + sum(kernel.variance for kernel in posterior.own)
        return mean, self.scale_ * posterior.deviation(prior, cross)
