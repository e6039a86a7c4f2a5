"""Gaussian processes over masks, with hyper-parameters by penalised marginal likelihood.

The covariance is a non-negative sum of given kernels plus, if asked for, a Hamming kernel with
one relevance per coordinate: s_h · exp(-Σ_e w_e |M_e - M'_e|), where units of one coordinate
share w up to a fixed weight. On binary inputs this is the ARD squared exponential, the ARD Laplace
kernel, and every other product of per-unit kernels with correlation exp(-w_e).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, lapack, solve_triangular
from scipy.optimize import minimize

from .observations import Array
from .threads import single_threaded

JITTER = 1e-8
SPREAD = 1.0  # of log w_e around their common mean, in nats


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal priors on the logs of the hyper-parameters, for a target of unit variance.

    Args:
        scales: (mean, std) for the variance of each given kernel.
        hamming: whether the Hamming kernel is there.
    """

    scales: tuple[tuple[float, float], ...]
    hamming: bool
    hamming_scale: tuple[float, float] = (0.0, 1.5)
    relevance: tuple[float, float] = (-1.5, 1.5)
    noise: tuple[float, float] = (-3.5, 2.0)


@dataclass(frozen=True, slots=True)
class Posterior:
    """A fitted process: what prediction needs, in plain arrays.

    Args:
        masks: [n, n_units] training masks.
        scales: variances of the given kernels.
        hamming: variance of the Hamming kernel (0 if absent).
        relevance: w [n_units]: of its coordinate, times the unit's weight in it.
        noise: noise variance.
        factor: [n, n] lower Cholesky factor of the covariance of the observations.
        alpha: [n] covariance⁻¹ · target.
    """

    masks: Array
    scales: Array
    hamming: float
    relevance: Array
    noise: float
    factor: Array
    alpha: Array

    def covariance(self, X: Array, Z: Array, kernels: list[Array]) -> Array:
        """[n_X, n_Z] covariance of the latent function, given the kernels between X and Z.

        Kernels may be left out at the end of the list, where their variance is negligible.
        """
        total = np.zeros((len(X), len(Z)))
        for scale, kernel in zip(self.scales, kernels, strict=False):
            total += scale * kernel
        if self.hamming:
            total += self.hamming * np.exp(-weighted_hamming(X, Z, self.relevance))
        return total

    def mean(self, cross: Array) -> Array:
        """[m] posterior means, from the covariance [m, n] with the training masks."""
        return cross @ self.alpha

    def explained(self, cross: Array) -> Array:
        """[n, m] whose columns' inner products are the covariance that the data explain."""
        return np.asarray(solve_triangular(self.factor, cross.T, lower=True, check_finite=False))


def weighted_hamming(X: Array, Z: Array, relevance: Array) -> Array:
    """[n_X, n_Z] of Σ_e w_e |X_e - Z_e|, for masks of zeros and ones."""
    left = X * relevance
    distance = left.sum(axis=1)[:, None] + (Z @ relevance)[None, :] - 2.0 * (left @ Z.T)
    return np.asarray(np.maximum(distance, 0.0))


@single_threaded
def fit_process(
    X: Array, target: Array, kernels: list[Array], prior: Prior, weights: Array
) -> Posterior:
    """The process whose hyper-parameters maximise marginal likelihood times prior.

    Args:
        X: training masks [n, n_units].
        target: [n], about zero mean and unit variance.
        kernels: given kernels, each [n, n].
        prior: as many scales as kernels.
        weights: [n_units, n_coordinates] of the units in each coordinate of the Hamming kernel.
    """
    evidence = _Evidence(X, target, kernels, prior, weights)
    start = evidence.start()
    result = minimize(
        evidence,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(m - 9.0, m + 9.0) for m in start],
        options={"maxiter": 60, "ftol": 1e-6},
    )
    return evidence.posterior(result.x)


@dataclass(frozen=True)
class _Evidence:
    """Negative log posterior of φ = [log scales, log noise, (log s_h, μ, δ_c)], log w = μ + δ."""

    X: Array
    target: Array
    kernels: list[Array]
    prior: Prior
    weights: Array

    def _means_stds(self) -> tuple[Array, Array]:
        pairs = [*self.prior.scales, self.prior.noise]
        if self.prior.hamming:
            pairs += [self.prior.hamming_scale, self.prior.relevance]
            pairs += [(0.0, SPREAD)] * self.weights.shape[1]
        means, stds = np.array(pairs).T
        return means, stds

    def start(self) -> Array:
        return self._means_stds()[0].copy()

    def _split(self, phi: Array) -> tuple[Array, float, float, Array]:
        k = len(self.kernels)
        values = np.exp(phi[: k + 1])
        if not self.prior.hamming:
            return values[:k], float(values[k]), 0.0, np.zeros(self.weights.shape[1])
        return (
            values[:k],
            float(values[k]),
            float(np.exp(phi[k + 1])),
            np.exp(phi[k + 2] + phi[k + 3 :]),
        )

    def __call__(self, phi: Array) -> tuple[float, Array]:
        means, stds = self._means_stds()
        scales, noise, variance, relevance = self._split(phi)
        parts = [s * kernel for s, kernel in zip(scales, self.kernels, strict=True)]
        if self.prior.hamming:
            distance = weighted_hamming(self.X, self.X, self.weights @ relevance)
            parts.append(variance * np.exp(-distance))
        n = len(self.X)
        covariance = sum(parts, np.zeros((n, n)))
        covariance[np.diag_indices(n)] += noise + JITTER
        factor, info = lapack.dpotrf(covariance, lower=1, clean=1)
        if info:
            return 1e25, np.zeros_like(phi)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        alpha = inverse @ self.target
        z = (phi - means) / stds
        value = 0.5 * self.target @ alpha + np.log(np.diag(factor)).sum() + 0.5 * z @ z
        outer = inverse - np.outer(alpha, alpha)
        slopes = [0.5 * float(np.vdot(outer, part)) for part in parts[: len(scales)]]
        slopes.append(0.5 * noise * float(np.trace(outer)))
        if self.prior.hamming:
            weight = outer * parts[-1]
            rows = weight.sum(axis=1)
            # Σ_ij G_ij |x_ie - x_je| = 2 Σ_i (G 1)_i x_ie - 2 (xᵀ G x)_ee on binary masks
            by_unit = rows @ self.X - np.einsum("ne,ne->e", self.X, weight @ self.X)
            by_log = -relevance * (by_unit @ self.weights)
            slopes += [0.5 * float(rows.sum()), float(by_log.sum()), *by_log]
        return float(value), np.array(slopes) + z / stds

    def posterior(self, phi: Array) -> Posterior:
        scales, noise, variance, relevance = self._split(phi)
        empty = np.zeros((0, 0))
        relevance = self.weights @ relevance  # of the units
        bare = Posterior(self.X, scales, variance, relevance, noise, empty, np.zeros(0))
        covariance = bare.covariance(self.X, self.X, self.kernels)
        covariance[np.diag_indices(len(self.X))] += noise + JITTER
        factor = np.asarray(cholesky(covariance, lower=True))
        half = solve_triangular(factor, self.target, lower=True)
        alpha = np.asarray(solve_triangular(factor, half, lower=True, trans="T"))
        return Posterior(self.X, scales, variance, relevance, noise, factor, alpha)


def square_root(covariance: Array) -> Array:
    """R with R · Rᵀ = covariance, of a matrix that is positive semi-definite up to rounding."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
