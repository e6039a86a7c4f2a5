"""Least squares for the path-sum model, started from the closed form of leave-one-out losses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .path_graph import Flow
from .threads import single_threaded
from .validation import Array, is_constant

RIDGES = (1.0, 0.3, 0.1, 0.03, 0.01)  # for a target of unit variance
CROSS = 0.01  # ridge on the factors of pairs of paths


@dataclass(frozen=True, slots=True)
class PathFit:
    """Fitted parameters: target = intercept + slope · (1 - φ_κ(z_out)); κ = 0 is the identity.

    `cross` has the factors of two further terms, 1 - z_out² and 1 - Σ (path weight)².
    """

    intercept: float
    slope: float
    kappa: float
    ridge: float
    weights: Array
    cross: tuple[float, float] = (0.0, 0.0)


def path_sum(flow: Flow, fit: PathFit, X: Array) -> Array:
    """Predictions [n_masks] on the link scale."""
    keep = flow.keep(X)
    z = flow.forward(fit.weights, keep)[-1]
    found = fit.intercept + fit.slope * (1.0 - saturated(z, fit.kappa)[0])
    if any(fit.cross):
        squares = flow.forward(fit.weights**2, keep)[-1]
        found = found + fit.cross[0] * (1.0 - z**2) + fit.cross[1] * (1.0 - squares)
    return found


@single_threaded
def fit_path_sum(
    flow: Flow,
    X: Array,
    target: Array,
    saturate: bool = False,
    ridges: Sequence[float] = RIDGES,
    cross: bool = False,
) -> PathFit:
    """Least squares with a ridge on θ towards its start, by Levenberg–Marquardt.

    The derivatives of z_out by every weight cost one forward and one backward pass, so that a
    Gauss–Newton step is cheap and a few suffice. The ridge is chosen by generalised
    cross-validation with the effective degrees of freedom of the linearised model.

    Args:
        X: masks [n_masks, n_units]; target: [n_masks] on the link scale.
        ridges: to choose from, the strongest first.
        cross: whether terms for pairs of paths are fitted too.
    """
    shift, scale = float(target.mean()), float(target.std())
    if is_constant(target):
        theta = np.zeros(len(flow.tails))
        return PathFit(shift, 0.0, 0.0, ridges[0], flow.softmax(theta))
    standard = (target - shift) / scale
    problem = _Problem(flow, flow.keep(X), standard, saturate, cross)
    start = problem.start(leave_one_out(X, standard))
    best, least, p, ridge = start, np.inf, start, ridges[0]
    for candidate in ridges:
        p, score = problem.solve(p, start, candidate)
        if score < least:
            best, least, ridge = p, score, candidate
    theta, b0, b1, log_kappa = problem.unpack(best)
    kappa = float(np.exp(log_kappa)) if saturate else 0.0
    pairs = problem.cross_terms(best)
    return PathFit(
        shift + scale * b0, scale * b1, kappa, ridge, flow.softmax(theta),
        (scale * pairs[0], scale * pairs[1]),
    )  # fmt: skip


def saturated(z: Array, kappa: float) -> tuple[Array, Array, Array]:
    """φ_κ(z) = (1 - exp(-κz)) / (1 - exp(-κ)), and its derivatives by z and by log κ."""
    if kappa < 1e-8:
        return z, np.ones_like(z), np.zeros_like(z)
    bottom = -np.expm1(-kappa)
    value = -np.expm1(-kappa * z) / bottom
    by_z = kappa * np.exp(-kappa * z) / bottom
    by_log = kappa * (z * np.exp(-kappa * z) - value * np.exp(-kappa)) / bottom
    return value, by_z, by_log


@dataclass(frozen=True)
class _Problem:
    """The residuals of the fit; parameters are θ [n_ways], intercept, slope and log κ.

    With terms for pairs of paths their two factors follow.
    """

    flow: Flow
    keep: Array
    target: Array
    saturate: bool
    cross: bool = False

    def unpack(self, p: Array) -> tuple[Array, float, float, float]:
        ways = len(self.flow.tails)
        return p[:ways], float(p[ways]), float(p[ways + 1]), float(p[ways + 2])

    def cross_terms(self, p: Array) -> tuple[float, float]:
        return (float(p[-2]), float(p[-1])) if self.cross else (0.0, 0.0)

    def predict(self, p: Array) -> tuple[Array, Array]:
        """Predictions [n_masks] and their Jacobian [n_masks, n_parameters]."""
        theta, b0, b1, log_kappa = self.unpack(p)
        weights = self.flow.softmax(theta)
        z, by_theta = self.flow.slopes(weights, self.keep)
        phi, by_z, by_log = saturated(z, np.exp(log_kappa) if self.saturate else 0.0)
        # mean = b0 + b1 (1 - φ(z)): columns are by θ [n_ways], b0, b1 and log κ, as in `unpack`;
        # by_theta is [n_ways, n_masks], by_z and by_log [n_masks], joined by the chain rule
        jacobian = np.column_stack(
            [-b1 * (by_theta * by_z).T, np.ones_like(z), 1.0 - phi, -b1 * by_log]
        )
        mean = b0 + b1 * (1.0 - phi)
        if not self.cross:
            return mean, jacobian
        squares, squares_by_theta = self.flow.slopes(weights, self.keep, power=2)
        pairs, alone = self.cross_terms(p)
        jacobian[:, : len(theta)] -= (2.0 * pairs * z * by_theta + alone * squares_by_theta).T
        jacobian = np.column_stack([jacobian, 1.0 - z**2, 1.0 - squares])
        return mean + pairs * (1.0 - z**2) + alone * (1.0 - squares), jacobian

    def start(self, drops: Array | None) -> Array:
        """The best of a few amplitudes, each with the weights that leave-one-out gives."""
        best, least = np.zeros(0), np.inf
        for amplitude in (1.0, 2.0, 4.0, 8.0):
            theta = np.zeros(len(self.flow.tails))
            if drops is not None:
                drops = -drops if np.nansum(drops) < 0 else drops  # accuracy falls, a loss rises
                top = float(np.max(drops, initial=1e-3, where=~np.isnan(drops)))
                theta = start_theta(self.flow, drops, amplitude * top)
            # with the weights fixed, intercept and slope are a line through (1 - z, target)
            z = self.flow.forward(self.flow.softmax(theta), self.keep)[-1]
            line = np.column_stack([np.ones_like(z), 1.0 - z])
            b = np.linalg.lstsq(line, self.target, rcond=None)[0]
            error = float(np.sum((line @ b - self.target) ** 2))
            if error < least:
                best, least = np.concatenate([theta, b, [0.0] * (3 if self.cross else 1)]), error
        return best

    def solve(self, p: Array, start: Array, ridge: float) -> tuple[Array, float]:
        """Levenberg–Marquardt from p; returns the minimum and its GCV score."""
        # intercept and slope are all but free; the faint pull keeps the system regular
        free = [1e-6, 1e-4, 0.3, *([CROSS] * 2 if self.cross else [])]
        pull = np.concatenate([np.full(len(p) - len(free), ridge), free])
        damping = 1e-3
        mean, jacobian = self.predict(p)
        cost = self._cost(mean, p, start, pull)
        for _ in range(30):
            # the Gauss–Newton step of Σ (mean - target)² + Σ pull (p - start)², its diagonal raised
            # by the damping: less after a step that helps, more after one that does not
            normal = jacobian.T @ jacobian + np.diag(pull)
            gradient = jacobian.T @ (mean - self.target) + pull * (p - start)
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
            trial = p + np.clip(step, -4.0, 4.0)
            trial_mean, trial_jacobian = self.predict(trial)
            trial_cost = self._cost(trial_mean, trial, start, pull)
            if not trial_cost < cost:
                damping = min(damping * 10.0, 1e6)
                if damping >= 1e6:
                    break
                continue
            done = cost - trial_cost <= 1e-5 * cost
            p, mean, jacobian, cost = trial, trial_mean, trial_jacobian, trial_cost
            damping = max(damping / 10.0, 1e-9)
            if done:
                break
        return p, self._score(mean, jacobian, pull)

    def _score(self, mean: Array, jacobian: Array, pull: Array) -> float:
        """Generalised cross-validation: mean squared error / (1 - freedom / n)²."""
        # the trace of what maps targets to predictions: J (JᵀJ + pull)⁻¹ Jᵀ
        gram = jacobian.T @ jacobian
        freedom = float(np.trace(np.linalg.solve(gram + np.diag(pull), gram)))
        left = max(1.0 - freedom / len(self.target), 1e-3)
        return float(np.mean((mean - self.target) ** 2)) / left**2

    def _cost(self, mean: Array, p: Array, start: Array, pull: Array) -> float:
        return float(np.sum((mean - self.target) ** 2) + np.sum(pull * (p - start) ** 2))


def leave_one_out(X: Array, target: Array) -> Array | None:
    """Δ [n_units]: the target with only that unit removed, less the target with none.

    NaN for units never removed alone, None without the empty mask; repeated masks are averaged.
    """
    counts = X.sum(axis=1)
    if not (counts == 0).any():
        return None
    alone = X[counts == 1]
    times = np.where(alone.sum(axis=0) > 0, alone.sum(axis=0), np.nan)
    drops: Array = (alone.T @ target[counts == 1]) / times - float(target[counts == 0].mean())
    return drops


def start_theta(flow: Flow, drops: Array, amplitude: float) -> Array:
    """The closed form: θ of the path-sum model that has these leave-one-out losses.

    With nothing removed a unit flow runs through the graph, and removing a way loses the flow
    through it: flow = Δ / amplitude. Going from the sink (flow 1) upwards, each node's flow is
    dealt to the ways into it: what the units' Δ say, and the rest to the ways without a known Δ.

    Args:
        drops: Δ [n_units], NaN where unknown.
        amplitude: the Δ of removing everything.
    """
    flows = np.clip(drops / amplitude, 1e-3, 1.0)
    # a way that several units cut carries no more than the least of their flows
    way_flow = np.where(flow.cuts > 0, np.where(np.isnan(flows), np.inf, flows), np.inf)
    least = way_flow.min(axis=1, initial=np.inf)
    node_flow, weights = np.zeros(flow.nodes), np.zeros(len(flow.tails))
    node_flow[-1] = 1.0
    for node in range(flow.nodes - 1, 0, -1):
        # all that leaves a node lies above it in the order, so that its own flow is complete here
        ways = np.arange(len(flow.tails))[flow.into[node]]
        part = _deal(least[ways] / max(node_flow[node], 1e-12))
        weights[ways] = part
        np.add.at(node_flow, flow.tails[ways], part * node_flow[node])
    return np.log(np.maximum(weights, 1e-6))


def _deal(part: Array) -> Array:
    """Shares of 1: the finite ones as given where they fit, the rest split equally."""
    free = np.isinf(part)
    if not free.any():
        return np.asarray(part / part.sum())
    known = np.where(free, 0.0, part)
    known *= min(1.0, 0.95 / max(float(known.sum()), 1e-12))
    known[free] = (1.0 - known.sum()) / free.sum()
    return known
