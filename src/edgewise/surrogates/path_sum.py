"""The path-sum model: a surrogate shaped like the network itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..graph import Graph
from .flow import Flow, push_weights, reduce_graph
from .observations import (
    Array,
    Link,
    check_masks,
    check_observations,
    is_constant,
    original_scale,
    refuse_std,
)

RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


@dataclass(frozen=True, slots=True)
class PathFit:
    """Fitted parameters: target = intercept + slope · (1 - φ_κ(z_out)); κ = 0 is the identity."""

    theta: Array
    intercept: float
    slope: float
    kappa: float
    ridge: float
    weights: Array


def path_sum(flow: Flow, fit: PathFit, X: Array) -> Array:
    """Predictions [n_masks] on the link scale."""
    z = flow.forward(fit.weights, flow.keep(X))[-1]
    return fit.intercept + fit.slope * (1.0 - _saturated(z, fit.kappa)[0])


def fit_path_sum(flow: Flow, X: Array, target: Array, saturate: bool = False) -> PathFit:
    """Least squares with a ridge on θ towards its start, by Levenberg–Marquardt.

    The derivatives of z_out by every weight cost one forward and one backward pass, so that a
    Gauss–Newton step is cheap and a few suffice. The ridge is chosen by generalised
    cross-validation with the effective degrees of freedom of the linearised model.

    Args:
        X: masks [n_masks, n_units]; target: [n_masks] on the link scale, not constant.
    """
    shift, scale = float(target.mean()), float(target.std())
    problem = _Problem(flow, flow.keep(X), (target - shift) / scale, saturate)
    start = problem.start(leave_one_out(flow, X, (target - shift) / scale))
    best, best_score, p = start, np.inf, start
    ridge = RIDGES[0]
    for candidate in RIDGES:
        p, score = problem.solve(p, start, candidate)
        if score < best_score:
            best, best_score, ridge = p, score, candidate
    theta, b0, b1, log_kappa = problem.unpack(best)
    return PathFit(
        theta=theta,
        intercept=shift + scale * b0,
        slope=scale * b1,
        kappa=float(np.exp(log_kappa)) if saturate else 0.0,
        ridge=ridge,
        weights=flow.softmax(theta),
    )


def _saturated(z: Array, kappa: float) -> tuple[Array, Array, Array]:
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
    """The residuals of the fit; parameters are θ [n_ways], intercept, slope and log κ."""

    flow: Flow
    keep: Array
    target: Array
    saturate: bool

    def unpack(self, p: Array) -> tuple[Array, float, float, float]:
        ways = len(self.flow.tails)
        return p[:ways], float(p[ways]), float(p[ways + 1]), float(p[ways + 2])

    def predict(self, p: Array) -> tuple[Array, Array]:
        """Predictions [n_masks] and their Jacobian [n_masks, n_parameters]."""
        theta, b0, b1, log_kappa = self.unpack(p)
        z, by_theta = self.flow.slopes(self.flow.softmax(theta), self.keep)
        phi, by_z, by_log = _saturated(z, np.exp(log_kappa) if self.saturate else 0.0)
        jacobian = np.column_stack(
            [-b1 * (by_theta * by_z).T, np.ones_like(z), 1.0 - phi, -b1 * by_log]
        )
        return b0 + b1 * (1.0 - phi), jacobian

    def start(self, flows: Array | None) -> Array:
        """The best of a few amplitudes, each with the weights that leave-one-out gives."""
        best, least = np.zeros(0), np.inf
        for amplitude in (1.0, 2.0, 4.0, 8.0):
            theta = np.zeros(len(self.flow.tails))
            if flows is not None:
                theta = start_theta(self.flow, flows, amplitude * max(flows.max(), 1e-3))
            z = self.flow.forward(self.flow.softmax(theta), self.keep)[-1]
            line = np.column_stack([np.ones_like(z), 1.0 - z])
            b = np.linalg.lstsq(line, self.target, rcond=None)[0]
            error = float(np.sum((line @ b - self.target) ** 2))
            if error < least:
                best, least = np.concatenate([theta, b, [0.0]]), error
        return best

    def solve(self, p: Array, start: Array, ridge: float) -> tuple[Array, float]:
        """Levenberg–Marquardt from p; returns the minimum and its GCV score."""
        # intercept and slope are all but free; the faint pull keeps the system regular
        pull = np.concatenate([np.full(len(p) - 3, ridge), [1e-6, 1e-4, 0.3]])
        damping = 1e-3
        mean, jacobian = self.predict(p)
        cost = self._cost(mean, p, start, pull)
        for _ in range(30):
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
        gram = jacobian.T @ jacobian
        freedom = float(np.trace(np.linalg.solve(gram + np.diag(pull), gram)))
        n = len(self.target)
        left = max(1.0 - freedom / n, 1e-3)
        return p, float(np.mean((mean - self.target) ** 2)) / left**2

    def _cost(self, mean: Array, p: Array, start: Array, pull: Array) -> float:
        return float(np.sum((mean - self.target) ** 2) + np.sum(pull * (p - start) ** 2))


def leave_one_out(flow: Flow, X: Array, target: Array) -> Array | None:
    """Δ [n_units]: the target with only that unit removed, less the target with none.

    None unless the masks hold the empty one and every leave-one-out; repeated masks are averaged.
    """
    counts = X.sum(axis=1)
    if not (counts == 0).any():
        return None
    single = X[counts == 1]
    times = single.sum(axis=0)
    if not len(single) or (times == 0).any():
        return None
    return (single.T @ target[counts == 1]) / times - float(target[counts == 0].mean())


def start_theta(flow: Flow, drops: Array, amplitude: float) -> Array:
    """The closed form: θ of the path-sum model that has these leave-one-out losses.

    With nothing removed a unit flow runs through the graph, and removing a way loses the flow
    through it: flow = Δ / amplitude. Going from the sink (flow 1) upwards, each node's flow is
    dealt to the ways into it: what the units' Δ say, and the rest to the ways without a unit.
    """
    flows = np.clip(drops / amplitude, 1e-3, 1.0)
    way_flow = np.array([flows[cut > 0].min() if cut.any() else -1.0 for cut in flow.cuts])
    node_flow, weights = np.zeros(flow.nodes), np.zeros(len(flow.tails))
    node_flow[-1] = 1.0
    for node in range(flow.nodes - 1, 0, -1):
        ways = np.arange(len(flow.tails))[flow.into[node]]
        known = way_flow[ways] > 0
        part = np.where(known, way_flow[ways] / max(node_flow[node], 1e-12), 0.0)
        if known.all() or part.sum() > 0.95:
            part *= (1.0 if known.all() else 0.95) / part.sum()
        if not known.all():
            part[~known] = (1.0 - part.sum()) / (~known).sum()
        weights[ways] = part
        np.add.at(node_flow, flow.tails[ways], part * node_flow[node])
    return np.log(np.maximum(weights, 1e-6))
