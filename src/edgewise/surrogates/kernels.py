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
        turned = self._by_metric(ends).T
        return partial(self._toward, turned, 0.5 * np.einsum("cn,nc->n", turned, ends))

    def _toward(self, turned: Array, sizes: Array, X: Array) -> Array:
        starts = self.coordinates.values(X)[0]
        # half of the squared distance with a minus: at most 0, but for rounding
        found = product(starts, turned)
        found -= 0.5 * self._squares(starts)[:, None]
        found -= sizes
        np.minimum(found, 0.0, out=found)
        np.exp(found, out=found)
        found *= self.variance
        return found

    @cached_property
    def _decay(self) -> Array:
        """[n_places, n_places] exp(-gap / ℓ)."""
        gaps = self.coordinates.gaps
        return np.asarray(np.exp(-np.arange(len(gaps)) / self.length)[gaps])

    def _by_metric(self, values: Array) -> Array:
        """[n, n_coordinates] values · v · C · v, over places, of which there are fewer."""
        scaled = values * self.by_coordinate
        near = self.coordinates.by_place(scaled) @ self._decay
        found = self.shared * near[:, self.coordinates.place] + (1.0 - self.shared) * scaled
        return np.asarray(found * self.by_coordinate)

    @cached_property
    def metric(self) -> Array:
        """[n_coordinates, n_coordinates] v · C · v."""
        return self._by_metric(np.eye(len(self.by_coordinate)))

    def _squares(self, starts: Array) -> Array:
        """[n] c · metric · c; moves from one mask cost only what they change."""
        if starts.shape[1] <= FEW:
            return np.asarray(np.einsum("nc,nc->n", starts @ self.metric, starts))
        base = starts[:1].sum(axis=0)
        slope, some = self._by_metric(base[None])[0], np.flatnonzero((starts != base).any(axis=0))
        changes, place = starts[:, some] - base[some], self.coordinates.place[some]
        metric = self.shared * self._decay[np.ix_(place, place)]
        metric[np.diag_indices(len(some))] += 1.0 - self.shared
        metric *= self.by_coordinate[some, None] * self.by_coordinate[some]
        found = base @ slope + 2.0 * (changes @ slope[some])
        return np.asarray(found + np.einsum("nc,nc->n", product(changes, metric), changes))

    def slopes(self, X: Array, outer: Array) -> list[float]:
        """½ Σ outer · ∂K/∂φ, given outer · K [n, n] of training masks X."""
        Z, rho = self.coordinates.values(X)[0] * self.by_coordinate, self.shared
        near, decay = self.coordinates.by_place(Z), self._decay
        # Σ_ij G_ij (z_i - z_j) ⊗ (z_i - z_j) = 2 Zᵀ (diag(G 1) - G) Z for any symmetric G
        spread = np.diag(outer.sum(axis=1)) - outer
        turned, faded = spread @ near, near @ decay
        together, alone = float(np.vdot(turned, faded)), float(np.vdot(spread @ Z, Z))
        by_gaps = float(np.vdot(turned, near @ (decay * self.coordinates.gaps)))
        common = [
            -rho * together - (1.0 - rho) * alone,
            -0.5 * rho * by_gaps / self.length,
            -0.5 * rho * (1.0 - rho) * (together - alone),
        ]
        if self.coordinates.spread != 0.0:
            own = rho * faded[:, self.coordinates.place] + (1.0 - rho) * Z
            common += (-np.einsum("nc,nc->c", spread @ Z, own)).tolist()
        return [0.5 * float(outer.sum()), *common]


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
