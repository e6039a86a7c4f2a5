"""The methods that F-1 compares, as published: they predict how good a mask is, in 0–1."""

import warnings

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from torch import Tensor
from torch.nn import functional as F

from dags import Dag, Network

EPOCHS = 1000


def goodness(losses: np.ndarray) -> np.ndarray:
    """1 for the least loss, 0 for the greatest: their target, at the mercy of one outlier."""
    return 1.0 - (losses - losses.min()) / (np.ptp(losses) + 1e-10)


def importances(network: Network, x: Tensor, y: Tensor, batch: int = 256) -> dict[str, np.ndarray]:
    """L1 (mean size of what an edge carries) and Taylor (squared slope of the loss by its gate)."""
    l1, taylor = (torch.zeros(len(network.dag.edges)) for _ in range(2))
    for images, labels in zip(x.split(batch), y.split(batch), strict=True):
        gates = torch.ones(len(network.dag.edges), requires_grad=True)
        logits, flows = network.flows(images, gates)
        (slopes,) = torch.autograd.grad(F.cross_entropy(logits, labels), gates)
        l1 += torch.stack([flow.detach().abs().mean() for flow in flows])
        taylor += slopes**2
    return {"L1": l1.numpy(), "Taylor": taylor.numpy()}


def mean_of_kept(importance: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The published score: the mean importance of the edges that a mask keeps."""
    kept = 1.0 - masks
    return np.asarray(kept @ importance / np.maximum(kept.sum(axis=1), 1.0))


def less_of_removed(importance: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The corrected score: the importance that a mask removes, with a minus."""
    return np.asarray(-masks @ importance)


def linear(masks: np.ndarray, good: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Least squares without a ridge."""
    return np.asarray(LinearRegression().fit(1.0 - masks, good).predict(1.0 - test))


def fcn(masks: np.ndarray, good: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Ten hidden ReLU units, 1 000 epochs of Adam at 1e-3 in batches of 32."""
    model = MLPRegressor(
        hidden_layer_sizes=(10,),
        alpha=0.0,
        batch_size=min(32, len(good)),
        max_iter=EPOCHS,
        tol=0.0,
        n_iter_no_change=EPOCHS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit(1.0 - masks, good).predict(1.0 - test))


class GraphSurrogate:
    """Their graph surrogate: z_v = Σ_u γ_uv keep_uv z_u, the γ out of a vertex a softmax.

    Args:
        dag: whose edges the masks remove.
    """

    def __init__(self, dag: Dag) -> None:
        self.tails, self.heads = (np.array(v) + 1 for v in zip(*dag.edges, strict=True))
        self.nodes = int(self.heads.max()) + 1
        self.into = [np.flatnonzero(self.heads == node) for node in range(self.nodes)]
        self.out_of = [np.flatnonzero(self.tails == node) for node in range(self.nodes)]
        self.theta = np.zeros(len(self.tails))

    def gamma(self) -> np.ndarray:
        """[n_edges] in [0, 1], of sum 1 out of every vertex."""
        raised = np.exp(self.theta - self.theta.max())
        return np.asarray(raised / np.bincount(self.tails, raised)[self.tails])

    def fit(self, masks: np.ndarray, good: np.ndarray) -> "GraphSurrogate":
        """Least squares by L-BFGS: thousands of their Adam epochs, in seconds."""
        keep = (1.0 - masks).T

        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            self.theta = theta
            error, slope = self._error(keep, good)
            return error, slope

        options = {"maxiter": 500}
        self.theta = minimize(objective, self.theta, jac=True, method="L-BFGS-B", options=options).x
        return self

    def predict(self, masks: np.ndarray) -> np.ndarray:
        """[n_masks] how good, in 0–1."""
        return self._forward(self.gamma(), (1.0 - masks).T)[-1]

    def _forward(self, gamma: np.ndarray, keep: np.ndarray) -> np.ndarray:
        z = np.ones((self.nodes, keep.shape[1]))
        passed = gamma[:, None] * keep
        for node in range(1, self.nodes):
            ways = self.into[node]
            z[node] = (passed[ways] * z[self.tails[ways]]).sum(axis=0)
        return z

    def _error(self, keep: np.ndarray, good: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean squared error and its derivative by θ."""
        gamma = self.gamma()
        z, b, passed = self._forward(gamma, keep), np.ones((self.nodes, keep.shape[1])), gamma
        for node in range(self.nodes - 2, -1, -1):
            ways = self.out_of[node]
            b[node] = (passed[ways, None] * keep[ways] * b[self.heads[ways]]).sum(axis=0)
        off = z[-1] - good
        by_gamma = (keep * z[self.tails] * b[self.heads] * off).sum(axis=1) * 2.0 / len(good)
        flow = gamma * by_gamma
        slope = flow - gamma * np.bincount(self.tails, flow)[self.tails]
        return float(np.mean(off**2)), np.asarray(slope)
