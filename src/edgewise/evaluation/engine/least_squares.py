"""Ridge regression from rows that come in parts, in memory and time that inputs bound, not rows.

With u the inputs [n], r what is missing [c], and means taken off: min over D of
Σ ‖D u − r‖² + λ‖D‖², so D = R (G + λ)⁻¹ with G = Σ uuᵀ and R = Σ ruᵀ. λ is a part of the mean of
G's diagonal, and chosen on half of the examples. Rows are kept until they outnumber the inputs;
from then on only G and Σ guᵀ are, with g the goals [c], so that R = Σ guᵀ − W G.

Where they never do, D = R' (K + λ)⁻¹ U with U [m, n] and R' [m, c] the rows and K = U Uᵀ.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .options import Memory

ROWS, WORK = 8192, 8192 * 1536**2  # of a fit; its rows · inputs · min(rows, inputs)
ONCE = 4  # times as many of either, where a finished mask is recovered
RIDGES = (1e-2, 1e-1, 1.0)
FEWEST = 1024  # rows that are summed at a time: fewer make slow products
BLOCK = 256  # of a matrix that is factored or summed at a time
FIRST, SECOND, BOTH = range(3)  # halves of the examples
MIXED = 256  # outputs by which a ridge is chosen, at most


def rows_for(inputs: int, times: int = 1) -> int:
    """How many rows a fit takes at most, so that none takes longer than some tenths of a second."""
    work = times * WORK
    few = min(math.isqrt(work // inputs), inputs)
    return min(times * ROWS, max(work // inputs**2, few))


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
        self.rows: Any = None  # U and K, where rows are few, and the rows of the halves and both
        self.kernel: Any = None
        self.parts: list[Tensor] = []
        self.count = [0, 0]
        self.means: list[Tensor] = []
        self.grams: list[Tensor] = []
        self._factors: dict[tuple[int, float], Tensor] = {}

    def release(self, memory: Memory) -> None:
        """A reader is done; what others will read stays, if it fits."""
        self.users -= 1
        tensors = (self.rows, self.kernel, *self.grams, *self._factors.values())
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
            gram = self.grams[part] if self.rows is None else self._centred(part)
            width = len(gram) if self.rows is None else self.rows.shape[1]
            self._factors[key] = _root(gram, ridge * gram.trace() / width)
        return torch.cholesky_solve(right.mT, self._factors[key]).mT

    def keep(self, u: Tensor, half: Tensor) -> None:
        """Take all rows, which are few, as they are."""
        self.known, self.rows = True, u
        self.kernel = _add_lower(u.new_zeros(len(u), len(u)), u)
        _mirror(self.kernel)
        self.parts = [(half == part).nonzero().flatten() for part in (FIRST, SECOND)]
        self.parts.append(torch.arange(len(u), device=u.device))

    def _centred(self, part: int) -> Tensor:
        """K of some rows, their mean taken off."""
        mine = self.parts[part]
        kernel: Tensor = self.kernel[mine[:, None], mine]
        mean = kernel.mean(0) * self.biased
        return kernel - mean - mean[:, None] + mean.mean()


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

    def _few(self) -> tuple[Tensor, Tensor] | None:
        """What `solve` gives where all rows together are few; else the last of them are summed."""
        if not self._waiting:
            return None
        u, g, half = self._moved()
        if self._g or len(u) > u.shape[1]:
            self._sum(u, g, half)
            return None
        inputs = self.inputs
        r = g - F.linear(u, self.weight, self._here(inputs.shift, self.weight, self.bias))
        if not inputs.known:
            inputs.keep(u, half)
        some = mixed(r.mT).mT
        first, second = (inputs.parts[part] for part in (FIRST, SECOND))
        before = inputs.kernel[first]

        def error(ridge: float) -> float:
            """Of the second half."""
            given, mean = self._by_rows(some[first], FIRST, ridge)
            off = (
                some[second]
                - mean
                - (before[:, second] - before[:, first].mean(1, True) * inputs.biased).mT @ given
            )
            return float(off.square().sum())

        best = self._best(error, float(some[second].square().sum()))
        if best is None:
            return torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        given, mean = self._by_rows(r, BOTH, best)
        change = given.mT @ u
        return change, mean - change @ (u.mean(0) * inputs.biased + inputs.shift)

    def _by_rows(self, r: Tensor, part: int, ridge: float) -> tuple[Tensor, Tensor]:
        """B with D = Bᵀ U of some rows, and the mean of r there."""
        mean = r.mean(0) * self.inputs.biased
        if ridge == math.inf:
            return torch.zeros_like(r), mean
        given = self.inputs.solve(part, ridge, (r - mean).mT).mT
        return given - given.mean(0) * self.inputs.biased, mean

    @staticmethod
    def _best(error: Callable[[float], float], nothing: float) -> float | None:
        """The ridge of the least error, infinite for a bias alone; None if no change has it."""
        errors = ((error(ridge), ridge) for ridge in (*RIDGES, math.inf))
        found = min((e for e in errors if not math.isnan(e[0])), default=(math.inf, math.inf))
        return found[1] if found[0] < nothing else None

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
        here = self._here(inputs.means[part] + inputs.shift, weight, bias)
        return mean - here * inputs.biased, ru - weight @ inputs.grams[part]

    def solve(self) -> tuple[Tensor, Tensor]:
        """The change of the weight [channels, inputs] and of the bias.

        The ridge is the best for the second half. If none of them makes the second half better,
        only the bias changes, or nothing.
        """
        if (few := self._few()) is not None:
            return few
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

        best = self._best(error, float(r_second.square().sum()))
        change, bias = torch.zeros_like(self._gu[BOTH]), torch.zeros_like(self.bias)
        if best is not None:
            bias, right = self._missing(BOTH, lambda values: values)
            if best < math.inf:
                change = inputs.solve(BOTH, best, right)
            bias = bias - change @ (inputs.means[BOTH] + inputs.shift)
        return change, bias


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
