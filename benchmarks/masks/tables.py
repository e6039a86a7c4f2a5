"""Tables of pruning masks: the loader, and an emulator of the masks that are not in a table."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, cho_factor, cho_solve, lapack
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

RESULTS = Path(__file__).parent.parent / "results" / "masks"
# units removed at the budgets of each table
REMOVED = {
    "resnet20": (3, 5), "resnet56": (8, 13), "resnet56-halves": (16, 22),
    "vit": (6, 9, 12), "smollm2": (8, 16, 22),
}  # fmt: skip
MANY = 30  # units, above which the process is fitted and believed with more caution


class Table(NamedTuple):
    """masks [n, units] (1 = removed), losses [n, examples], macs [units], names [units]."""

    masks: np.ndarray
    losses: np.ndarray
    macs: np.ndarray
    names: np.ndarray


def load(name: str) -> Table:
    """A table by its name, a key of REMOVED."""
    found = np.load(RESULTS / f"{name}.npz")
    return Table(*(found[field] for field in Table._fields))


class Emulator:
    """Losses of single examples of any mask; those in the table are the measured ones.

    The mean log loss of a mask is that of a Gaussian process on all of the table, its
    hyper-parameters from 500 of its masks. Up to MANY units have a length each, in a squared
    exponential kernel. Of more units the lengths are not known from so few masks, and searches find
    masks whose losses are extrapolated to nearly nothing; they share one, in a Matérn kernel, and
    the mean is taken a deviation of the process higher. How examples differ is taken from the
    measured mask that the kernel finds nearest.
    """

    def __init__(self, name: str) -> None:
        self.table = table = load(name)
        losses = table.losses.astype(np.float64)
        rows = map(tuple, table.masks.tolist())
        self.measured = dict(zip(rows, losses, strict=True))
        self.made: dict[tuple[int, ...], np.ndarray] = {}
        self.X = table.masks.astype(np.float64)
        self.exhaustive = len(self.X) == 2 ** self.X.shape[1]
        if self.exhaustive:
            return
        y = np.log(losses.mean(1))
        units, path = self.X.shape[1], RESULTS / f"{name}-kernel.json"
        alike = RBF(np.full(units, 3.0), (0.3, 100)) if units <= MANY else Matern(3.0, (0.3, 100))
        shape = ConstantKernel() * alike + WhiteKernel(1e-3)
        if not path.exists():
            some = np.random.default_rng(0).permutation(len(y))[:500]
            process = GaussianProcessRegressor(shape, normalize_y=True).fit(self.X[some], y[some])
            path.write_text(json.dumps(process.kernel_.theta.tolist()) + "\n")
        self.kernel = shape.clone_with_theta(np.array(json.loads(path.read_text())))
        self.centre, self.scale = y.mean(), y.std()
        self.factor = cho_factor(self.kernel(self.X), lower=True)
        self.weights = cho_solve(self.factor, (y - self.centre) / self.scale)
        self.error = self._left_out(y)
        if units > MANY:
            self.whitening, _ = lapack.dtrtri(self.factor[0], lower=1)
            self.whitening = np.asfortranarray(self.whitening, np.float32)

    def _left_out(self, y: np.ndarray) -> np.ndarray:
        """Errors in log loss where each mask of the table is predicted from all others."""
        inverse = cho_solve(self.factor, np.eye(len(y)))
        return self.scale * self.weights / np.diag(inverse)

    def losses(self, mask: tuple[int, ...]) -> np.ndarray:
        """[examples]."""
        if mask in self.measured:
            return self.measured[mask]
        if mask not in self.made:
            likeness = self.kernel(np.array([mask], float), self.X)[0]
            mean = float(likeness @ self.weights)
            if len(mask) > MANY:
                explained = blas.strmv(self.whitening, likeness, lower=1)
                mean += max(self.kernel.k1.k1.constant_value - explained @ explained, 0.0) ** 0.5
            mean = np.exp(self.centre + self.scale * mean)
            near = self.measured[tuple(self.table.masks[int(likeness.argmax())].tolist())]
            self.made[mask] = near * (mean / near.mean())
        return self.made[mask]
