"""Ridge regression from rows that come in parts, in memory and time that inputs bound, not rows.

With u the inputs [n], r what is missing [c], and means taken off: min over D of
Σ ‖D u − r‖² + λ‖D‖², so D = R (G + λ)⁻¹ with G = Σ uuᵀ and R = Σ ruᵀ. λ is a part of the mean of
G's diagonal, and chosen on half of the examples. Rows are kept until they outnumber the inputs;
from then on only G and R are.

Where they never do, D = A L⁻¹ U for some A [c, m]: U [m, n] are the rows and L Lᵀ = U Uᵀ. Since
L⁻¹ U has orthonormal rows, ‖D‖ = ‖A‖, and A is the same regression with the rows of L as inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .options import Memory

ROWS, WORK = 8192, 8192 * 1536**2  # of a fit; its rows · inputs · min(rows, inputs)
RIDGES = (1e-2, 1e-1, 1.0)
FEWEST = 1024  # rows that are summed at a time: fewer make slow products
BLOCK = 256  # of a matrix that is factored or summed at a time
FIRST, SECOND, BOTH = range(3)  # halves of the examples


def rows_for(inputs: int) -> int:
    """How many rows a fit takes at most, so that none takes longer than some tenths of a second."""
    few = min(math.isqrt(WORK // inputs), inputs)
    return min(ROWS, max(WORK // inputs**2, few))


class Inputs:
    """Sums of what a layer reads; layers that read the same share them.

    Args:
        biased: whether means are taken off.
    """

    def __init__(self, biased: bool) -> None:
        self.biased, self.users, self._kept = biased, 0, 0
        self._clear()

    def _clear(self) -> None:
        self.known = False
        self.shift: Any = 0.0  # near the mean, so that sums lose little
        self.rows: Any = None  # U and the root L, where rows are few
        self.root: Any = None
        self.count = [0, 0]
        self.means: list[Tensor] = []
        self.grams: list[Tensor] = []
        self._factors: dict[tuple[int, float], Tensor] = {}

    def release(self, memory: Memory) -> None:
        """A reader is done; what others will read stays, if it fits."""
        self.users -= 1
        tensors = (self.rows, self.root, *self.grams, *self._factors.values())
        held = sum(t.numel() * t.element_size() for t in tensors if t is not None)
        memory.held -= self._kept
        keeps = self.users and memory.held + held <= memory.limit
        self._kept = held if keeps else 0
        memory.held += self._kept
        if not keeps:
            self._clear()

    def add(self, u: Tensor, half: int) -> None:
        """Sum up rows of a half."""
        if not self.grams:
            self.means = [u.new_zeros(u.shape[1]) for _ in (FIRST, SECOND)]
            self.grams = [u.new_zeros(u.shape[1], u.shape[1]) for _ in (FIRST, SECOND)]
        self.count[half] += len(u)
        self.means[half] += u.sum(0)
        _add_lower(self.grams[half], u.mT)

    def finish(self) -> None:
        """All rows have been there: from here on `means` are means, and taken off."""
        self.known = True
        self.count.append(sum(self.count))
        for values in (self.means, self.grams):
            values.append(values[FIRST] + values[SECOND])
        for part, count in enumerate(self.count):
            total = self.means[part] * self.biased
            self.means[part] = total / count
            self.grams[part] -= torch.outer(total, self.means[part])
        _mirror(self.grams[SECOND])

    def solve(self, part: int, ridge: float, right: Tensor) -> Tensor:
        """`right` (G + λ)⁻¹ for a half or both."""
        key = part, ridge
        if key not in self._factors:
            gram = self.grams[part]
            width = len(gram) if self.rows is None else self.rows.shape[1]
            self._factors[key] = _root(gram, ridge * gram.trace() / width)
        return torch.cholesky_solve(right.mT, self._factors[key]).mT


class Fit:
    """The least squares of one layer.

    Args:
        inputs: of what it reads; known already, if another layer reads it.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._r: list[Tensor] = []  # of either half Σ r and Σ ruᵀ
        self._ru: list[Tensor] = []

    def add(self, u: Tensor, r: Tensor, half: Tensor) -> None:
        """Take rows [rows, inputs], [rows, channels], and the half that each belongs to."""
        self._waiting.append((u, r, half))
        if sum(len(rows) for rows, *_ in self._waiting) > max(u.shape[1], FEWEST):
            self._sum(*self._moved())

    def _moved(self) -> tuple[Tensor, Tensor, Tensor]:
        """The rows that wait, inputs shifted."""
        u, r, half = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        if self.inputs.biased and not self._r and not self.inputs.known:
            self.inputs.shift = u.mean(0)
        self._waiting = []
        return u - self.inputs.shift, r, half

    def _sum(self, u: Tensor, r: Tensor, half: Tensor) -> None:
        if not self._r:
            self._r = [r.new_zeros(r.shape[1]) for _ in (FIRST, SECOND)]
            self._ru = [r.new_zeros(r.shape[1], u.shape[1]) for _ in (FIRST, SECOND)]
        for part in (FIRST, SECOND):
            mine = (half == part).nonzero().flatten()
            self._r[part] += r[mine].sum(0)
            self._ru[part].addmm_(r[mine].mT, u[mine])
            if not self.inputs.known:
                self.inputs.add(u[mine], part)

    def _rest(self) -> None:
        """Sum up the last rows, or the rows of their root if all together are few."""
        if not self._waiting:
            return
        u, r, half = self._moved()
        if not self._r and len(u) <= u.shape[1]:
            if not self.inputs.known:
                kernel = _add_lower(u.new_zeros(len(u), len(u)), u)
                # rows that are alike have no root in this precision without some more
                limits = torch.finfo(u.dtype)
                tiny = limits.tiny + 4 * limits.eps * kernel.trace()
                self.inputs.rows, self.inputs.root = u, _root(kernel, tiny)
            u = self.inputs.root
        self._sum(u, r, half)

    def solve(self) -> tuple[Tensor, Tensor]:
        """The change of the weight [channels, inputs] and of the bias.

        The ridge is the best for the second half. If none of them makes the second half better,
        only the bias changes, or nothing.
        """
        self._rest()
        inputs = self.inputs
        if not inputs.known:
            inputs.finish()
        r, ru = ([*sums, sums[FIRST] + sums[SECOND]] for sums in (self._r, self._ru))
        for part, count in enumerate(inputs.count):
            r[part] = r[part] * inputs.biased / count  # from here on a mean
            ru[part] -= torch.outer(r[part], inputs.means[part]) * count

        def solved(part: int, ridge: float) -> tuple[Tensor, Tensor]:
            """A, and the bias that takes what it leaves of the mean."""
            none = ridge == math.inf
            change = torch.zeros_like(ru[part]) if none else inputs.solve(part, ridge, ru[part])
            return change, r[part] - change @ inputs.means[part]

        def error(change: Tensor, bias: Tensor) -> float:
            """Of the second half, less what is there without a change."""
            spread = (change @ inputs.grams[SECOND] - 2 * ru[SECOND]) * change
            off = r[SECOND] - bias - change @ inputs.means[SECOND]
            return float(spread.sum() / inputs.count[SECOND] + off.square().sum())

        errors = {ridge: error(*solved(FIRST, ridge)) for ridge in (*RIDGES, math.inf)}
        finite = ((e, ridge) for ridge, e in errors.items() if not math.isnan(e))
        least, best = min(finite, default=(math.inf, math.inf))
        nothing = torch.zeros_like(ru[BOTH]), torch.zeros_like(r[BOTH])
        change, bias = solved(BOTH, best) if least < error(*nothing) else nothing
        if inputs.root is not None:
            root = inputs.root.nan_to_num()
            change = torch.linalg.solve_triangular(root, change, upper=False, left=False)
            change = change @ inputs.rows
        return change, bias - change @ (inputs.shift + torch.zeros_like(change[0]))


def _add_lower(total: Tensor, a: Tensor) -> Tensor:
    """`total` with the lower half of a aᵀ added."""
    for begin in range(0, len(a), BLOCK):
        end = begin + BLOCK
        total[begin:end, :end].addmm_(a[begin:end], a[:end].mT)
    return total


def _mirror(matrix: Tensor) -> None:
    """Give a matrix whose lower half is known its upper half."""
    for begin in range(0, len(matrix), BLOCK):
        end = begin + BLOCK
        matrix[begin:end, end:] = matrix[end:, begin:end].mT


def _root(matrix: Tensor, more: Tensor) -> Tensor:
    """Lower L with L Lᵀ = the matrix with more on its diagonal; NaN if there is none.

    In blocks, which takes a third of the time of one call of LAPACK's.
    """
    matrix = matrix.clone()
    matrix.diagonal().add_(more)
    for begin in range(0, len(matrix), BLOCK):
        end = begin + BLOCK
        left, right = matrix[begin:, :begin], matrix[begin:end, :begin]
        matrix[begin:, begin:end].addmm_(left, right.mT, alpha=-1)
        corner, failed = torch.linalg.cholesky_ex(matrix[begin:end, begin:end])
        matrix[begin:end, begin:end] = corner if not failed else math.nan
        below = matrix[end:, begin:end]
        below.copy_(torch.linalg.solve_triangular(corner.mT, below, upper=True, left=False))
        matrix[begin:end, end:] = 0
    return matrix
