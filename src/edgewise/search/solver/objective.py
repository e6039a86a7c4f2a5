"""What a solver minimises: the predictions of surrogates, as rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EdgewiseError
from ...surrogates import Degree2, GraphGP, Linear, PathSum, UnitGP
from ...surrogates.path_fit import PathFit, path_sum, saturated
from ...surrogates.path_graph import Flow
from .model import Frame
from .path_rows import PathRows, Segment, segments, whole_segment
from .rows import Rows

Array = NDArray[np.float64]
Of = Callable[[float], float]
PAIRS = 3  # interactions a unit that are kept of a Degree2


@dataclass(frozen=True)
class Exact:
    """A target that its rows describe exactly.

    Σ terms[variable] · variable is to be minimised; `of` gives the prediction where that sum has a
    value.
    """

    terms: Mapping[int, float]
    of: Of

    def tighten(self, X: Array) -> bool:
        """Make the rows exact at a mask [1, n_units]; False if they were."""
        return False


@dataclass(frozen=True)
class Segmented:
    """A path sum: minus the logarithm of z_out, whose upper bounds are tangents."""

    flow: Flow
    weights: Array
    rows: Rows
    segments: Sequence[Segment]
    of: Of

    @property
    def terms(self) -> Mapping[int, float]:
        return {segment.log: -1.0 for segment in self.segments}

    def tighten(self, X: Array) -> bool:
        keep = self.flow.keep(X)
        shares = [float(s.passes(self.flow, self.weights, keep)[0]) for s in self.segments]
        pairs = zip(self.segments, shares, strict=True)
        return sum(segment.touch(self.rows, share) for segment, share in pairs) > 0


Written = Exact | Segmented


@dataclass(frozen=True)
class PathSumTarget:
    """A path sum, whose saturation is monotone.

    What is minimised is -log z_out, or -z_out where there is one segment only; where removals are
    predicted to lower the loss it is z_out.
    """

    flow: Flow
    fit: PathFit
    shift: float = 0.0
    scale: float = 1.0

    def write(self, rows: Rows, frame: Frame) -> Written:
        """Add what is needed to rows that start with those of a frame."""
        writer = PathRows(self.flow, self.fit.weights, rows, frame)
        if self.fit.slope <= 0:
            whole = whole_segment(self.flow)
            writer.least(whole)
            return Exact({whole.share: 1.0} if self.fit.slope else {}, self._link)
        found = segments(self.flow, self.fit.weights, frame.graph.nested)
        if len(found) == 1:
            writer.greatest(found[0])
            return Exact({found[0].share: -1.0}, lambda value: self._link(-value))
        for segment in found:
            writer.logarithm(segment)

        def of(value: float) -> float:
            return self._link(float(np.exp(-value)))

        return Segmented(self.flow, self.fit.weights, rows, found, of)

    @property
    def floor(self) -> float:
        """A prediction that no mask is below."""
        return self._link(1.0 if self.fit.slope > 0 else 0.0)

    def _link(self, z: float) -> float:
        passed = float(saturated(np.array([z]), self.fit.kappa)[0][0])
        return self.shift + self.scale * (self.fit.intercept + self.fit.slope * (1.0 - passed))

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

    def write(self, rows: Rows, frame: Frame) -> Written:
        keeps = frame.keeps
        constant, terms = self.constant + float(self.single.sum()), dict[int, float]()
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

        def of(value: float) -> float:
            return constant + size * value

        return Exact({k: value / size for k, value in terms.items()}, of)

    @property
    def floor(self) -> float:
        falling = np.minimum([*self.single, *self.pairs.values()], 0.0)
        return self.constant + float(falling.sum())

    def predict(self, X: Array) -> Array:
        found = self.constant + X @ self.single
        for (u, v), value in self.pairs.items():
            found = found + value * X[:, u] * X[:, v]
        return np.asarray(found)


Target = PathSumTarget | Quadratic  # a prediction that grows with a sum of variables


def target_of(model: Any, units: int, pairs: int | None = None) -> Target:
    """The target of a fitted surrogate.

    Args:
        model: a `PathSum`, a `GraphGP` (its path sum counts, not its interactions), a `UnitGP`
            (what is linear in it), a `Linear` or a `Degree2` (its strongest interactions).
        units: of the graph.
        pairs: interactions kept; three a unit unless given.

    Raises:
        EdgewiseError: another kind of surrogate.
    """
    if not solvable(model):
        names = ", ".join(kind.__name__ for kind in _MAKERS)
        raise EdgewiseError(
            f"A solver cannot minimise a {type(model).__name__}; it can minimise {names}. "
            "For others use edgewise.search.descend."
        )
    return _MAKERS[type(model)](model, PAIRS * units if pairs is None else pairs)


def solvable(model: Any) -> bool:
    """Whether `target_of` knows the kind of a surrogate."""
    return type(model) in _MAKERS


def _inside(model: Any) -> Target:
    """The path sum in a Gaussian process; a constant if its losses were constant."""
    if model.path_sum_ is None:
        return Quadratic(model.shift_, np.zeros(model.n_features_in_), {})
    return PathSumTarget(model.flow_, model.path_sum_, model.shift_, model.scale_)


def _additive(constant: float, single: Array) -> Target:
    return Quadratic(constant, single, {})


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


_MAKERS: dict[type, Callable[[Any, int], Target]] = {
    PathSum: lambda model, pairs: PathSumTarget(model.flow_, model.fit_),
    GraphGP: lambda model, pairs: _inside(model),
    Linear: lambda model, pairs: _additive(float(model.intercept_), model.coef_),
    UnitGP: lambda model, pairs: _additive(*model.linear_),
    Degree2: _strongest,
}
