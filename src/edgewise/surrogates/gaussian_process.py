"""Gaussian processes over masks, with hyper-parameters by penalised marginal likelihood.

The covariance is a non-negative sum of given kernels and of kernels on the differences between
masks, which have hyper-parameters of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import blas, lapack
from scipy.optimize import minimize

from .features import Coordinates
from .kernels import Hamming, Local, Pairs
from .threads import single_threaded
from .validation import Array

JITTER = 1e-8
FARTHEST = 5.0  # a hyper-parameter from its prior mean, in prior deviations
Kind = type[Hamming] | type[Local]


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal priors on the logs of the hyper-parameters, for a target of unit variance.

    Args:
        scales: (mean, std) for the variance of each given kernel.
        own: kinds of kernels on differences.
        coordinates: of the masks, for these kernels.
    """

    scales: tuple[tuple[float, float], ...]
    own: tuple[Kind, ...] = ()
    coordinates: Coordinates | None = None
    noise: tuple[float, float] = (-3.5, 2.0)

    def own_priors(self) -> list[Pairs]:
        """Those of the hyper-parameters of each kernel on differences."""
        return [kind.prior(self.coordinates) for kind in self.own if self.coordinates]


@dataclass(frozen=True)
class Posterior:
    """A fitted process: what prediction needs, in plain arrays.

    Args:
        masks: [n, n_units] training masks.
        scales: variances of the given kernels.
        own: kernels on differences.
        noise: noise variance.
        whitening: [n, n] inverse of the lower Cholesky factor of the observations' covariance.
        alpha: [n] covariance⁻¹ · target.
    """

    masks: Array
    scales: Array
    own: tuple[Hamming | Local, ...]
    noise: float
    whitening: Array
    alpha: Array

    def covariance(self, X: Array, Z: Array, kernels: list[Array]) -> Array:
        """[n_X, n_Z] covariance of the latent function, given the kernels between X and Z."""
        return sum((own.between(X, Z) for own in self.own), self.given(kernels))

    def given(self, kernels: list[Array]) -> Array:
        """The sum of the given kernels, in a fresh array.

        Kernels may be left out at the end of the list, where their variance is negligible.
        """
        total = np.zeros_like(kernels[0])
        for scale, kernel in zip(self.scales, kernels, strict=False):
            total += scale * kernel
        return total

    @cached_property
    def toward(self) -> list[Callable[[Array], Array]]:
        """What the kernels on differences are between masks [m, n_units] and those of training."""
        return [kernel.toward(self.masks) for kernel in self.own]

    def mean(self, cross: Array) -> Array:
        """[m] posterior means, from the covariance [m, n] with the training masks."""
        return cross @ self.alpha

    def explained(self, cross: Array) -> Array:
        """[n, m] whose columns' inner products are the covariance that the data explain."""
        return np.asarray(blas.dtrmm(1.0, self.whitening, cross.T, lower=1))

    def deviation(self, prior: Array, cross: Array) -> Array:
        """[m] deviations of observations, from prior variances [m] and the covariance [m, n]."""
        explained = self.explained(cross).T
        left = np.maximum(prior - np.einsum("mn,mn->m", explained, explained), 0.0)
        return np.asarray(np.sqrt(left + self.noise + JITTER))


@single_threaded
def fit_process(
    X: Array, target: Array, kernels: list[Array], prior: Prior, known: Array | float = 0.0
) -> Posterior:
    """The process whose hyper-parameters maximise marginal likelihood times prior.

    Args:
        X: training masks [n, n_units].
        target: [n], about zero mean and unit variance.
        kernels: given kernels, each [n, n].
        prior: as many scales as kernels.
        known: [n] variances of known noise, beside the one that is fitted.
    """
    evidence = _Evidence(X, target, kernels, prior, known)
    means, stds = evidence.means_stds

    def by_deviations(z: Array) -> tuple[float, Array]:
        value, slopes = evidence(means + stds * z)
        return value, slopes * stds

    # in prior deviations the first step, which may go to a bound, still leaves a covariance with a
    # Cholesky factor; from one without there is no way back
    result = minimize(
        by_deviations,
        np.zeros(len(means)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-FARTHEST, FARTHEST)] * len(means),
        options={"maxiter": 60, "ftol": 1e-6},
    )
    return evidence.posterior(means + stds * result.x)


@dataclass(frozen=True)
class _Evidence:
    """Negative log posterior of φ = [log scales, log noise, φ of each kernel on differences]."""

    X: Array
    target: Array
    kernels: list[Array]
    prior: Prior
    known: Array | float = 0.0

    @cached_property
    def flat(self) -> Array:
        """[n_kernels, n²] the given kernels."""
        return np.array([kernel.ravel() for kernel in self.kernels])

    @cached_property
    def means_stds(self) -> tuple[Array, Array]:
        """Of the prior of φ."""
        own = [pair for pairs in self.prior.own_priors() for pair in pairs]
        means, stds = np.array([*self.prior.scales, self.prior.noise, *own]).T
        return means, stds

    def _split(self, phi: Array) -> tuple[Array, float, tuple[Hamming | Local, ...]]:
        """Scales of the given kernels, noise, and the kernels on differences."""
        first, own = len(self.kernels) + 1, []
        values = np.exp(phi[:first])
        for kind, pairs in zip(self.prior.own, self.prior.own_priors(), strict=True):
            assert self.prior.coordinates is not None
            own.append(kind.at(phi[first : first + len(pairs)], self.prior.coordinates))
            first += len(pairs)
        return values[:-1], float(values[-1]), tuple(own)

    def __call__(self, phi: Array) -> tuple[float, Array]:
        means, stds = self.means_stds
        scales, noise, own = self._split(phi)
        parts = [kernel.between(self.X, self.X) for kernel in own]
        n = len(self.X)
        covariance = sum(parts, (scales @ self.flat).reshape(n, n))
        covariance[np.diag_indices(n)] += noise + JITTER + self.known
        # C [n, n] = L Lᵀ; where that fails φ is worse than any other, without a slope
        factor, info = lapack.dpotrf(covariance, lower=1, clean=1)
        if info:
            return 1e25, np.zeros_like(phi)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse += np.tril(inverse, -1).T
        alpha = inverse @ self.target
        z = (phi - means) / stds
        # ½ yᵀC⁻¹y + ½ log |C|, and the prior of φ; of the determinant half is the sum of log Lᵢᵢ
        value = 0.5 * self.target @ alpha + np.log(np.diag(factor)).sum() + 0.5 * z @ z
        # by φ: ½ tr((C⁻¹ - ααᵀ) ∂C/∂φ). Of the log of a scale ∂C is scale · kernel, of that of the
        # noise it is noise · 1; kernels on differences weigh the matrix by theirs in `slopes`
        outer = inverse - np.outer(alpha, alpha)
        slopes = [*(0.5 * scales * (self.flat @ outer.ravel()))]
        slopes.append(0.5 * noise * float(np.trace(outer)))
        for kernel, part in zip(own, parts, strict=True):
            slopes += kernel.slopes(self.X, outer * part)
        return float(value), np.array(slopes) + z / stds

    def posterior(self, phi: Array) -> Posterior:
        scales, noise, own = self._split(phi)
        bare = Posterior(self.X, scales, own, noise, np.zeros((0, 0)), np.zeros(0))
        return condition(bare, self.X, self.target, self.kernels, self.known)


def condition(
    process: Posterior, X: Array, target: Array, kernels: list[Array], known: Array | float
) -> Posterior:
    """The process with the same hyper-parameters, given these observations; see `fit_process`."""
    covariance = process.covariance(X, X, kernels)
    covariance[np.diag_indices(len(X))] += process.noise + JITTER + known
    factor, failed = lapack.dpotrf(covariance, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("The covariance of the observations has no Cholesky factor.")
    whitening, _ = lapack.dtrtri(factor, lower=1)
    alpha = np.asarray(whitening.T @ (whitening @ target))
    return replace(process, masks=X, whitening=whitening, alpha=alpha)


def square_root(covariance: Array) -> Array:
    """R with R · Rᵀ = covariance, of a matrix that is positive semi-definite up to rounding."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
