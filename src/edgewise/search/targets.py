"""What a solver minimises: the predictions of surrogates, as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgewiseError
from ..surrogates import Degree2, GraphGP, Linear, PathSum
from ..surrogates.flow import SOURCE, Flow
from ..surrogates.path_fit import PathFit, path_sum, saturated
from .circuit import Rows

Array = NDArray[np.float64]
PAIRS = 3  # interactions a unit that are kept of a Degree2


@dataclass(frozen=True)
class Objective:
    """Constant + Σ terms[variable] · variable, to be minimised."""

    constant: float
    terms: Mapping[int, float]


class Target(Protocol):
    """A prediction on the link scale that grows with an objective in rows."""

    def write(self, rows: Rows, keeps: Sequence[int]) -> Objective:
        """Add what is needed to rows in which `keeps` are 1 where a unit is kept."""

    def of(self, objective: float) -> float:
        """The prediction where the objective has this value."""

    def predict(self, X: Array) -> Array:
        """The predictions [n_masks] of masks [n_masks, n_units] (1 = removed)."""


@dataclass(frozen=True)
class PathSumTarget:
    """A path sum: objective -z_out, or z_out where removals are predicted to lower the loss.

    z_in = 1, w_e ≤ z_tail and w_e ≤ keep for each unit that cuts e, z_v ≤ Σ a_e w_e; from below
    w_e ≥ z_tail - Σ (1 - keep) and z_v ≥ Σ a_e w_e. The saturation is monotone.
    """

    flow: Flow
    fit: PathFit
    shift: float = 0.0
    scale: float = 1.0

    @property
    def sign(self) -> float:
        return -1.0 if self.fit.slope >= 0 else 1.0

    def write(self, rows: Rows, keeps: Sequence[int]) -> Objective:
        flow = self.flow
        z = [rows.variable(least=float(node == SOURCE)) for node in range(flow.nodes)]
        for node in range(1, flow.nodes):
            into = range(len(flow.tails))[flow.into[node]]
            terms = {z[node]: -1.0}
            for way in into:
                passed = self._passed(rows, keeps, z, way)
                terms[passed] = terms.get(passed, 0.0) + float(self.fit.weights[way])
            if self.sign < 0:
                rows.at_least(terms, 0.0)
            else:
                rows.at_most(terms, 0.0)
        return Objective(0.0, {z[-1]: self.sign} if self.fit.slope else {})

    def _passed(self, rows: Rows, keeps: Sequence[int], z: Sequence[int], way: int) -> int:
        """The variable of what passes a way: z of its tail where no unit cuts it, else 0."""
        cut = np.flatnonzero(self.flow.cuts[way])
        tail = z[int(self.flow.tails[way])]
        if not cut.size:
            return tail
        if cut.size == 1 and self.flow.tails[way] == SOURCE:
            return int(keeps[int(cut[0])])
        passed = rows.variable()
        if self.sign < 0:
            for unit in cut:
                rows.at_least({keeps[int(unit)]: 1.0, passed: -1.0}, 0.0)
            rows.at_least({tail: 1.0, passed: -1.0}, 0.0)
        else:
            terms = {passed: 1.0, tail: -1.0} | {keeps[int(u)]: -1.0 for u in cut}
            rows.at_least(terms, -float(cut.size))
        return passed

    def of(self, objective: float) -> float:
        z = saturated(np.array([self.sign * objective]), self.fit.kappa)[0][0]
        return self.shift + self.scale * (self.fit.intercept + self.fit.slope * (1.0 - float(z)))

    def predict(self, X: Array) -> Array:
        return np.asarray(self.shift + self.scale * path_sum(self.flow, self.fit, X))


@dataclass(frozen=True)
class Quadratic:
    """Constant + Σ single[u] removed_u + Σ pairs[u, v] removed_u removed_v.

    `left_out` is the sum of the sizes of interactions that are not in `pairs`.
    """

    constant: float
    single: Array
    pairs: Mapping[tuple[int, int], float]
    left_out: float = 0.0

    @property
    def size(self) -> float:
        """By which the objective is divided, so that a solver's tolerances mean something."""
        values = [*np.abs(self.single), *map(abs, self.pairs.values())]
        return float(max(values, default=0.0)) or 1.0

    def write(self, rows: Rows, keeps: Sequence[int]) -> Objective:
        constant, terms = float(self.single.sum()), dict[int, float]()
        for unit, value in enumerate(self.single):
            terms[keeps[unit]] = -float(value)
        for (u, v), value in self.pairs.items():
            both = rows.variable()
            terms[both] = value
            kept = {keeps[u]: 1.0, keeps[v]: 1.0}
            if value > 0:  # both ≥ removed_u + removed_v - 1
                rows.at_least({both: 1.0, **kept}, 1.0)
            else:
                for unit in (u, v):
                    rows.at_most({both: 1.0, keeps[unit]: 1.0}, 1.0)
        size = self.size
        return Objective(constant / size, {k: value / size for k, value in terms.items()})

    def of(self, objective: float) -> float:
        return self.constant + self.size * objective

    def predict(self, X: Array) -> Array:
        found = self.constant + X @ self.single
        for (u, v), value in self.pairs.items():
            found = found + value * X[:, u] * X[:, v]
        return np.asarray(found)


def target_of(model: Any, units: int, pairs: int | None = None) -> Target:
    """The target of a fitted surrogate.

    Args:
        model: a `PathSum`, a `GraphGP` (its path sum counts, not its interactions), a `Linear` or
            a `Degree2` (of whose interactions only the strongest are kept).
        units: of the graph.
        pairs: interactions kept; three a unit unless given.

    Raises:
        EdgewiseError: another kind of surrogate.
    """
    makers: dict[type, Callable[[], Target]] = {
        PathSum: lambda: PathSumTarget(model.flow_, model.fit_),
        GraphGP: lambda: _inside(model, units),
        Linear: lambda: Quadratic(float(model.intercept_), model.coef_, {}),
        Degree2: lambda: _strongest(model, PAIRS * units if pairs is None else pairs),
    }
    if type(model) not in makers:
        names = ", ".join(kind.__name__ for kind in makers)
        raise EdgewiseError(
            f"A solver cannot minimise a {type(model).__name__}; it can minimise {names}. "
            "For others use ew.search.descend."
        )
    return makers[type(model)]()


def _inside(model: Any, units: int) -> Target:
    """The path sum in a Gaussian process; a constant if its losses were constant."""
    if model.path_sum_ is None:
        return Quadratic(model.shift_, np.zeros(units), {})
    return PathSumTarget(model.flow_, model.path_sum_, model.shift_, model.scale_)


def _strongest(model: Any, pairs: int) -> Quadratic:
    """The posterior mean of a Degree2 as a polynomial, with its largest interactions.

    Σ_i α_i (v₀ + v₁ c_i + ½ v₂ c_i (c_i - 1)) with c_i the units that a mask and training mask i
    both remove: unit u has Σ_i α_i v₁ X_iu, and units u ≠ v have Σ_i α_i v₂ X_iu X_iv.
    """
    posterior = model.posterior_
    if posterior is None:
        return Quadratic(model.shift_, np.zeros(model.n_features_in_), {})
    X, alpha = posterior.masks, model.scale_ * posterior.alpha
    constant, single, pair = posterior.scales
    u, v = np.triu_indices(X.shape[1], 1)
    values = pair * ((X.T * alpha) @ X)[u, v]
    order = np.argsort(-np.abs(values), kind="stable")
    kept = {(int(u[i]), int(v[i])): float(values[i]) for i in order[:pairs] if values[i]}
    return Quadratic(
        constant=model.shift_ + constant * float(alpha.sum()),
        single=np.asarray(single * (X.T @ alpha)),
        pairs=kept,
        left_out=float(np.abs(values[order[pairs:]]).sum()),
    )
