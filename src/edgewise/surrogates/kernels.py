"""Kernels on what differs between two masks, with one relevance per coordinate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.sparse import csr_matrix

from .features import Coordinates
from .validation import Array

FEW = 128  # columns: fewer are multiplied as they are
MOVED = 0.1  # of what is in the columns that moves from one mask change at most differs from it
SPREAD = 1.0  # of the log of a coordinate's relevance around their common mean, in nats
Pairs = list[tuple[float, float]]


@dataclass(frozen=True)
class Hamming:
    """s · exp(-Σ_e w_e |c_e - c'_e|), where a coordinate's units share w up to their weights.

    On binary coordinates this is the ARD squared exponential, the ARD Laplace kernel, and every
    other product of per-unit kernels with correlation exp(-w_e).

    Args:
        variance: s.
        by_coordinate: w [n_coordinates].
        coordinates: of the masks.
    """

    variance: float
    by_coordinate: Array
    coordinates: Coordinates

    @staticmethod
    def prior(coordinates: Coordinates) -> Pairs:
        """(mean, std) of the hyper-parameters φ = [log s, μ, δ_c], log w = μ + δ."""
        return [(0.0, 1.5), (-1.5, 1.5), *[(0.0, SPREAD)] * coordinates.weights.shape[1]]

    @staticmethod
    def at(phi: Array, coordinates: Coordinates) -> Hamming:
        """The kernel of hyper-parameters φ."""
        return Hamming(float(np.exp(phi[0])), np.exp(phi[1] + phi[2:]), coordinates)

    @property
    def relevance(self) -> Array:
        """[n_units] what a unit adds to the exponent if only it differs."""
        return np.asarray(self.coordinates.weights @ self.by_coordinate)

    def between(self, X: Array, Z: Array) -> Array:
        """[n_X, n_Z] covariance between masks."""
        return np.asarray(self.variance * np.exp(-weighted_hamming(X, Z, self.relevance)))

    def toward(self, Z: Array) -> Callable[[Array], Array]:
        """What gives the covariance [n_X, n_Z] of masks X with these."""
        return partial(self.between, Z=Z)

    def slopes(self, X: Array, outer: Array) -> list[float]:
        """½ Σ outer · ∂K/∂φ, given outer · K [n, n] of training masks X."""
        rows = outer.sum(axis=1)
        # Σ_ij G_ij |x_ie - x_je| = 2 Σ_i (G 1)_i x_ie - 2 (xᵀ G x)_ee on binary masks
        by_unit = rows @ X - np.einsum("ne,ne->e", X, outer @ X)
        by_log = -self.by_coordinate * (by_unit @ self.coordinates.weights)
        return [0.5 * float(rows.sum()), float(by_log.sum()), *by_log]


@dataclass(frozen=True)
class Local:
    """s · exp(-½ Σ_ef v_e δ_e C_ef v_f δ_f), C = ρ exp(-gap / ℓ) + (1 - ρ) I, with δ = c - c'.

    Two masks are alike if one removes what the other removes nearby: then the differences cancel.
    With ρ = 0 this is the ARD squared exponential, for which every unit is another matter; with
    ρ = 1 and a long ℓ it compares how much harm is done in all, whichever units do it.

    Args:
        variance: s.
        by_coordinate: v [n_coordinates].
        length: ℓ, in places along the graph.
        shared: ρ.
        coordinates: of the masks.
    """

    variance: float
    by_coordinate: Array
    length: float
    shared: float
    coordinates: Coordinates

    @staticmethod
    def prior(coordinates: Coordinates) -> Pairs:
        """(mean, std) of φ = [log s, μ, log ℓ, logit ρ, δ_c], log v = μ + δ.

        With ρ = 1, a long ℓ and free v the kernel is one of a learned total, which fits any few
        masks and predicts no others: the more coordinates, the less each v may differ.
        """
        common, count = [(0.0, 1.5), (-1.0, 1.0), (1.5, 0.4), (0.0, 0.7)], len(coordinates.places)
        spread = coordinates.spread
        if spread is None:
            spread = min(0.5, 2.5 / max(count, 1) ** 0.5)
        return [*common, *[(0.0, spread)] * (count if spread else 0)]

    @staticmethod
    def at(phi: Array, coordinates: Coordinates) -> Local:
        """The kernel of hyper-parameters φ."""
        variance, length = np.exp(phi[0]), np.exp(phi[2])
        shared = 0.5 * (1.0 + np.tanh(0.5 * phi[3]))
        own = phi[4:] if len(phi) > 4 else 0.0
        v = coordinates.typical * np.exp(phi[1] + own)
        return Local(float(variance), v, float(length), float(shared), coordinates)

    @property
    def relevance(self) -> Array:
        """[n_units] what a unit adds to the exponent if only it differs."""
        return np.asarray(0.5 * (self.coordinates.weights * self.by_coordinate**2).sum(axis=1))

    def between(self, X: Array, Z: Array) -> Array:
        """[n_X, n_Z] covariance between masks."""
        return self.toward(Z)(X)

    def toward(self, Z: Array) -> Callable[[Array], Array]:
        """What gives the covariance [n_X, n_Z] of masks X with these."""
        ends = self.coordinates.values(Z)[0]
        turned = self.metric @ ends.T
        return partial(self._toward, turned, 0.5 * np.einsum("cn,nc->n", turned, ends))

    def _toward(self, turned: Array, sizes: Array, X: Array) -> Array:
        starts = self.coordinates.values(X)[0]
        # half of the squared distance with a minus: at most 0, but for rounding
        found = product(starts, turned)
        found -= 0.5 * quadratic(starts, self.metric)[:, None]
        found -= sizes
        np.minimum(found, 0.0, out=found)
        np.exp(found, out=found)
        found *= self.variance
        return found

    @cached_property
    def _decay(self) -> Array:
        """[n_coordinates, n_coordinates] exp(-gap / ℓ)."""
        gaps = self.coordinates.gaps
        return np.asarray(np.exp(-np.arange(gaps.max(initial=0) + 1) / self.length)[gaps])

    @cached_property
    def metric(self) -> Array:
        """[n_coordinates, n_coordinates] v · C · v."""
        found = self.by_coordinate[:, None] * self._decay
        found *= self.shared * self.by_coordinate
        found[np.diag_indices_from(found)] += (1.0 - self.shared) * self.by_coordinate**2
        return np.asarray(found)

    def slopes(self, X: Array, outer: Array) -> list[float]:
        """½ Σ outer · ∂K/∂φ, given outer · K [n, n] of training masks X."""
        Z, rho = self.coordinates.values(X)[0], self.shared
        # Σ_ij G_ij (z_i - z_j) ⊗ (z_i - z_j) = 2 Zᵀ (diag(G 1) - G) Z for any symmetric G
        spread = Z.T @ (outer.sum(axis=1)[:, None] * Z - outer @ Z)
        spread *= self.by_coordinate[:, None]
        spread *= self.by_coordinate
        alone = np.diag(spread).copy()
        spread *= self._decay
        near = spread.sum(axis=1)
        by_v = -(rho * near + (1.0 - rho) * alone)
        by_length = -0.5 * rho / self.length * float(np.vdot(spread, self.coordinates.gaps))
        by_shared = -0.5 * rho * (1.0 - rho) * float(near.sum() - alone.sum())
        each = () if self.coordinates.spread == 0.0 else by_v
        return [0.5 * float(outer.sum()), float(by_v.sum()), by_length, by_shared, *each]


def weighted_hamming(X: Array, Z: Array, relevance: Array) -> Array:
    """[n_X, n_Z] of Σ_e w_e |X_e - Z_e|, for masks of zeros and ones."""
    left = X * relevance
    distance = left.sum(axis=1)[:, None] + (Z @ relevance)[None, :] - 2.0 * (left @ Z.T)
    return np.asarray(np.maximum(distance, 0.0))


def product(X: Array, metric: Array) -> Array:
    """X · metric, in a fresh array; moves from one mask cost only what they change."""
    if len(metric) <= FEW:
        return np.asarray(X @ metric)
    changes = X - X[:1]
    some = np.flatnonzero(changes.any(axis=0))
    changes, rows = changes[:, some], metric[some]
    sparse = len(some) > FEW and np.count_nonzero(changes) <= MOVED * changes.size
    if not sparse and 2 * len(some) > len(metric):
        return np.asarray(X @ metric)
    found: Array = csr_matrix(changes) @ rows if sparse else changes @ rows
    found += X[:1] @ metric
    return found


def quadratic(X: Array, metric: Array) -> Array:
    """[n] x · metric · x of a symmetric metric; see `product`."""
    if len(metric) <= FEW:
        return np.asarray(np.einsum("nc,nc->n", X @ metric, X))
    base = X[:1].sum(axis=0)
    slope, some = metric @ base, np.flatnonzero((X - base).any(axis=0))
    changes = X[:, some] - base[some]
    turned = product(changes, metric[np.ix_(some, some)])
    found = base @ slope + 2.0 * (changes @ slope[some])
    return np.asarray(found + np.einsum("nc,nc->n", turned, changes))
