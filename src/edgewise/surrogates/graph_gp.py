"""The graph Gaussian process: a path-sum mean, and interactions through kernels over masks."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..graph.graph import Graph
from .features import Coordinates
from .gaussian_process import Posterior, Prior, fit_process, square_root
from .kernels import Hamming, Local
from .path_fit import PathFit, fit_path_sum, leave_one_out, path_sum
from .path_graph import path_kernel, push_weights
from .path_sum import kirchhoff
from .process import Process
from .reduction import reduce_graph
from .threads import single_threaded
from .validation import Array, Link, check_masks

FOLDS = 5
ROWS = 2048  # masks predicted at a time, to bound memory
NEGLIGIBLE = 1e-3  # of the target's variance: not worth the time the path kernel takes

# Normal priors (mean, std) of the log variances, for a target of unit variance: the constant,
# the path-sum prediction, single coordinates, all widths together, paths, pairs of paths.
SCALES = ((1.0, 1.0), (0.0, 2.0), (-1.0, 1.5), (-1.0, 2.0), (-1.0, 1.5), (-1.0, 1.5))
PATHS, PAIRS = 4, 5


class GraphGP(Process):
    """Gaussian process whose prior mean and covariance know the graph.

    target = β₀ + β₁ · m̂(M) + GP(0, s₁ c·c' + s₂ t·t' + s₃ K + s₄ K∘K + s₅ exp(-½ δᵀvCvδ)) + ε.
    c are coordinates of the mask: M_e for each edge or layer, and for each group of nested widths
    how much importance is gone, Σ importance_e · M_e, all in one unit; t is the sum over groups,
    what a ranking by importance alone would go by.
    m̂ is the prediction of a (saturating) `PathSum`, for the training masks cross-fitted in five
    folds so that its coefficient is honest; K is the path kernel with τ = ½a + ½/indegree
    (Takimoto & Warmuth 2003), and K∘K its products of two paths. In the last term δ = c - c', v are
    relevances (log-normal around a common value), and C_ef = ρ exp(-|place_e - place_f| / ℓ) for
    e ≠ f: it says which units matter together, and that removing one unit does much the same as
    removing a neighbour along the graph; for widths there is also s₆ exp(-Σ w|δ|). All these and
    the noise maximise marginal likelihood times weak priors, so that data decide how much of the
    graph to believe. β₀ and β₁ have normal
    priors and are integrated out. With fewer than ten masks m̂ is left out.

    Args:
        graph: whose units the masks remove.
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".
        random_state: seed or RandomState of the folds.

    Attributes:
        path_sum_: the fitted path-sum model; None if the losses were constant.
        gamma_, kirchhoff_: of it, as in `PathSum`; None likewise.
        posterior_: the fitted process, for a standardised target; None if they were constant.
        relevance_: [n_units] what a unit adds to the exponents if only it differs.
        noise_: standard deviation of the noise on the link scale.

    Examples:
        >>> model = ew.surrogates.GraphGP(graph).fit(X, losses)
        >>> mean, std = model.predict_link(candidates, return_std=True)
        >>> mean.shape, std.shape
        ((4,), (4,))
    """

    def __init__(
        self,
        graph: Graph,
        *,
        link: Link = "log",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.graph = graph
        self.link = link
        self.random_state = random_state

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        self.path_sum_: PathFit | None = None
        self.relevance_: Array = np.zeros(masks.shape[1])
        self.gamma_: Array | None = None
        self.kirchhoff_: Array | None = None
        super()._learn(masks, target, noise)
        if self.posterior_ is not None and (drops := leave_one_out(masks, target)) is not None:
            self.kirchhoff_ = kirchhoff(self.graph, drops)

    def _process(self, masks: Array, target: Array, known: Array) -> Posterior:
        self.flow_ = reduce_graph(self.graph)
        self.path_sum_ = fit_path_sum(self.flow_, masks, target, saturate=True)
        self.gamma_ = push_weights(self.flow_, self.path_sum_.weights, self.graph)
        self.train_mean_ = self._cross_fitted(masks, target)
        self.coordinates_ = Coordinates.of(self.graph, masks)
        # paths count half by what the path sum learned, half as if all ways into a node were alike
        self.tau_ = 0.5 * self.path_sum_.weights + 0.5 / self.flow_.indegree
        self.paths_ = True
        kernels = self._between(masks, masks, self.train_mean_, self.train_mean_)
        # of coordinates that are 0 or 1 the Hamming kernel is the local one with ρ = 0
        own = (Local, Hamming) if self.coordinates_.widths.any() else (Local,)
        found = fit_process(masks, target, kernels, Prior(SCALES, own, self.coordinates_), known)
        self.paths_ = float(found.scales[[PATHS, PAIRS]].sum()) > NEGLIGIBLE
        self.relevance_ = sum((kernel.relevance for kernel in found.own), self.relevance_)
        return found

    def _cross_fitted(self, masks: Array, target: Array) -> Array:
        """m̂ [n_masks], each predicted by a model that did not see it; 0 for few masks."""
        assert self.path_sum_ is not None
        if len(target) < 2 * FOLDS:
            return np.zeros(len(target))
        fold = check_random_state(self.random_state).permutation(len(target)) % FOLDS
        # the closed-form start needs the empty mask, and no model learns anything else from it
        fold[masks.sum(axis=1) == 0] = -1
        mean = path_sum(self.flow_, self.path_sum_, masks)
        for k in range(FOLDS):
            out = fold == k
            fit = fit_path_sum(self.flow_, masks[~out], target[~out], True, (self.path_sum_.ridge,))
            mean[out] = path_sum(self.flow_, fit, masks[out])
        return mean

    def _mean(self, masks: Array) -> Array:
        """m̂ [n_masks]."""
        if self.path_sum_ is None or len(self.train_mean_) < 2 * FOLDS:
            return np.zeros(len(masks))
        return path_sum(self.flow_, self.path_sum_, masks)

    def _between(self, X: Array, Z: Array, mean_x: Array, mean_z: Array) -> list[Array]:
        """The kernels of SCALES between masks X and Z with their m̂, each [n_X, n_Z]."""
        (single_x, total_x), (single_z, total_z) = map(self.coordinates_.values, (X, Z))
        given = [np.ones((len(X), len(Z))), np.outer(mean_x, mean_z)]
        given += [single_x @ single_z.T, np.outer(total_x, total_z)]
        if not self.paths_:
            return given
        paths = path_kernel(self.flow_, self.tau_, self.flow_.keep(X), self.flow_.keep(Z))
        return [*given, paths, paths * paths]

    def _given(self, masks: Array, posterior: Posterior) -> Array:
        mean = self._mean(masks)
        return posterior.given(self._between(masks, posterior.masks, mean, self.train_mean_))

    def _diagonal(self, masks: Array) -> list[Array]:
        single, total = self.coordinates_.values(masks)
        found = [np.ones(len(masks)), self._mean(masks) ** 2, (single**2).sum(axis=1), total**2]
        if self.paths_:
            # keep is 0 or 1, so keep · keep' of a mask with itself is a path sum with weights τ
            paths = self.flow_.forward(self.tau_, self.flow_.keep(masks))[-1]
            found += [paths, paths**2]
        return found

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        starts = range(0, max(len(masks), 1), ROWS)
        parts = [super(GraphGP, self)._on_link(masks[i : i + ROWS], return_std) for i in starts]
        if return_std:
            return tuple(np.concatenate(both) for both in zip(*parts, strict=True))
        return np.concatenate(parts)

    @single_threaded
    def sample(
        self, X: ArrayLike, n: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Array:
        """Joint draws [n, n_masks] of the posterior on the link scale, noise left out.

        Takes time cubic, and memory quadratic, in the number of masks: some thousands at most.

        Raises:
            ValueError: malformed masks.
        """
        check_is_fitted(self)
        masks = check_masks(X, self.n_features_in_)
        normal = check_random_state(random_state).standard_normal((n, len(masks)))
        if self.posterior_ is None:
            return np.asarray(self.shift_ + self.constant_std_ * normal)
        mean, cross = self._mean(masks), self._cross(masks, self.posterior_)
        explained = self.posterior_.explained(cross)
        kernels = self._between(masks, masks, mean, mean)
        left = self.posterior_.covariance(masks, masks, kernels) - explained.T @ explained
        draws = self.posterior_.mean(cross) + normal @ square_root(left).T
        return np.asarray(self.shift_ + self.scale_ * draws)
