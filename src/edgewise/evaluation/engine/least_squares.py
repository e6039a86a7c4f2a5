"""Ridge regression from rows that come in parts, in memory and time that inputs bound, not rows.

With u the inputs [n], r what is missing [c], and means taken off: min over D of
Σ ‖D u − r‖² + λ‖D‖², so D = R (G + λ)⁻¹ with G = Σ uuᵀ and R = Σ ruᵀ. λ is a part of the mean of
G's diagonal, and chosen on half of the examples. Rows are kept until they outnumber the inputs;
from then on only G and Σ guᵀ are, with g the goals [c], so that R = Σ guᵀ − W G.

Where they never do, D = A L⁻¹ U for some A [c, m]: U [m, n] are the rows and L Lᵀ = U Uᵀ. Since
L⁻¹ U has orthonormal rows, ‖D‖ = ‖A‖, and A is the same regression with the rows of L as inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .options import Memory

ROWS, WORK = 8192, 8192 * 1536**2  # of a fit; its rows · inputs · min(rows, inputs)
RIDGES = (1e-2, 1e-1, 1.0)
FEWEST = 1024  # rows that are summed at a time: fewer make slow products
BLOCK = 256  # of a matrix that is factored or summed at a time
FIRST, SECOND, BOTH = range(3)  # halves of the examples
MIXED = 256  # outputs by which a ridge is chosen, at most


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
            _mirror(self.grams[part])

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
        weight: that it has [channels, inputs].
        bias: that it has [channels].
    """

    def __init__(self, inputs: Inputs, weight: Tensor, bias: Tensor) -> None:
        self.inputs, self.weight, self.bias = inputs, weight, bias
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._g: list[Tensor] = []  # of either half Σ g and Σ guᵀ
        self._gu: list[Tensor] = []

    def add(self, u: Tensor, g: Tensor, half: Tensor) -> None:
        """Take rows [rows, inputs], goals [rows, channels], and the half that each belongs to."""
        self._waiting.append((u, g, half))
        if sum(len(rows) for rows, *_ in self._waiting) > max(u.shape[1], FEWEST):
            self._sum(*self._moved())

    def _moved(self) -> tuple[Tensor, Tensor, Tensor]:
        """The rows that wait, inputs shifted."""
        u, g, half = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        if self.inputs.biased and not self._g and not self.inputs.known:
            self.inputs.shift = u.mean(0)
        self._waiting = []
        return u - self.inputs.shift, g, half

    def _sum(self, u: Tensor, g: Tensor, half: Tensor) -> None:
        if not self._g:
            self._g = [g.new_zeros(g.shape[1]) for _ in (FIRST, SECOND)]
            self._gu = [g.new_zeros(g.shape[1], u.shape[1]) for _ in (FIRST, SECOND)]
        for part in (FIRST, SECOND):
            mine = (half == part).nonzero().flatten()
            self._g[part] += g[mine].sum(0)
            self._gu[part].addmm_(g[mine].mT, u[mine])
            if not self.inputs.known:
                self.inputs.add(u[mine], part)

    def _rest(self) -> None:
        """Sum up the last rows, or the rows of their root if all together are few."""
        if not self._waiting:
            return
        u, g, half = self._moved()
        if not self._g and len(u) <= u.shape[1]:
            g = g - F.linear(u, self.weight, self._here(self.inputs.shift, self.weight, self.bias))
            if not self.inputs.known:
                kernel = _add_lower(u.new_zeros(len(u), len(u)), u)
                # rows that are alike have no root in this precision without some more
                limits = torch.finfo(u.dtype)
                tiny = limits.tiny + 4 * limits.eps * kernel.trace()
                self.inputs.rows, self.inputs.root = u, _root(kernel, tiny)
            u = self.inputs.root
        self._sum(u, g, half)

    @staticmethod
    def _here(u: Any, weight: Tensor, bias: Tensor) -> Tensor:
        """What the layer gives for one row, which may be the number 0."""
        row: Tensor = u + torch.zeros_like(weight[0])
        return bias + weight @ row

    def _missing(self, part: int, some: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Of some channels the mean of r, and Σ ruᵀ with means taken off."""
        inputs, weight, bias = self.inputs, some(self.weight), some(self.bias)
        mean, ru = some(self._g[part]) * inputs.biased / inputs.count[part], some(self._gu[part])
        ru = ru - torch.outer(mean, inputs.means[part]) * inputs.count[part]
        if inputs.rows is None:  # else the rows were r, not g
            here = self._here(inputs.means[part] + inputs.shift, weight, bias)
            mean, ru = mean - here * inputs.biased, ru - weight @ inputs.grams[part]
        return mean, ru

    def solve(self) -> tuple[Tensor, Tensor]:
        """The change of the weight [channels, inputs] and of the bias.

        The ridge is the best for the second half. If none of them makes the second half better,
        only the bias changes, or nothing.
        """
        self._rest()
        inputs = self.inputs
        if not inputs.known:
            inputs.finish()
        for sums in (self._g, self._gu):
            sums.append(sums[FIRST] + sums[SECOND])
        (r, ru), (r_second, ru_second) = (self._missing(part, mixed) for part in (FIRST, SECOND))

        def error(ridge: float) -> float:
            """Of the second half, less what is there without a change."""
            off, spread = r_second - r, r.new_zeros(())
            if ridge < math.inf:
                change = inputs.solve(FIRST, ridge, ru)
                off = off - change @ (inputs.means[SECOND] - inputs.means[FIRST])
                spread = ((change @ inputs.grams[SECOND] - 2 * ru_second) * change).sum()
            return float(spread / inputs.count[SECOND] + off.square().sum())

        errors = ((error(ridge), ridge) for ridge in (*RIDGES, math.inf))
        least, best = min((e for e in errors if not math.isnan(e[0])), default=(math.inf, math.inf))
        change, bias = torch.zeros_like(self._gu[BOTH]), torch.zeros_like(self.bias)
        if least < r_second.square().sum():
            mean, right = self._missing(BOTH, lambda values: values)
            if best < math.inf:
                change = inputs.solve(BOTH, best, right)
            bias = mean - change @ inputs.means[BOTH]
        if inputs.root is not None:
            root = inputs.root.nan_to_num()
            change = torch.linalg.solve_triangular(root, change, upper=False, left=False)
            change = change @ inputs.rows
        return change, bias - change @ (inputs.shift + torch.zeros_like(change[0]))


def mixed(values: Tensor) -> Tensor:
    """Values [c, ...] as at most MIXED sums with random signs, whose squares have the same mean.

    All layers with as many outputs get the same signs (Johnson and Lindenstrauss, 1984).
    """
    if len(values) <= MIXED:
        return values
    random = torch.Generator().manual_seed(len(values))
    signs = torch.randint(0, 2, (MIXED, len(values)), generator=random) * 2 - 1
    return signs.to(values) @ values / math.sqrt(MIXED)


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
