"""Layers fitted in closed form, so that a pruned network gives what the unpruned one gives.

With u the layer's inputs (the patch of a convolution), r what is missing from its goal, and
means taken off: min over D of ‖D u − r‖² + λ‖D‖², so D = R G⁻¹ with G = Σ uuᵀ + λ, R = Σ ruᵀ. D
is added to the weight, and the means go into the bias, or into the mean of the batch norm.
λ is a part of the mean of G's diagonal, and chosen on half of the examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from ...graph.graph import Graph
from ...values.nested import batch_size, copies_of
from .batch_norm import Linear, affine, apply, scaled

Inputs = tuple[Any, ...]
Aim = tuple[int, int]  # a vertex, and the axis of its channels
ROWS = 8192  # of a fit; more places of an image say little that is new
RIDGES = (1e-2, 1e-1, 1.0)
SMALL = 1e-6  # a norm that scales a channel by less hides what its layer does


class Targets:
    """What the unpruned network gives on the calibration data, at some places of each example.

    Args:
        graph: the traced graph.
        pieces: the calibration data.
    """

    def __init__(self, graph: Graph, pieces: Sequence[Inputs]) -> None:
        self.graph, self.pieces = graph, pieces
        self.asked: set[Aim] = set()
        self._rows: dict[Aim, list[torch.Tensor]] = {}

    def ask(self, aim: Aim) -> None:
        """What will be needed, so that the network runs once for many."""
        self.asked.add(aim)

    def rows(self, aim: Aim) -> list[torch.Tensor]:
        """[examples, places, channels] of every piece."""
        if aim not in self._rows:
            new = self.asked - self._rows.keys()
            parts = [self._record(inputs, new) for inputs in self.pieces]
            self._rows |= {aim: [part[aim] for part in parts] for aim in new}
        return self._rows[aim]

    def _record(self, inputs: Inputs, aims: Iterable[Aim]) -> dict[Aim, torch.Tensor]:
        total = sum(batch_size(piece) for piece in self.pieces)
        recorder = _Recorder(self.graph, aims, ROWS * batch_size(inputs) / total)
        recorder.run(*copies_of(inputs))
        return recorder.found


class _Recorder(fx.Interpreter):
    def __init__(self, graph: Graph, aims: Iterable[Aim], rows: float) -> None:
        super().__init__(graph.program.module, garbage_collect_values=True)
        self.rows, self.found = rows, dict[Aim, torch.Tensor]()
        self.aims: dict[str, list[Aim]] = {}
        for vertex, axis in aims:
            self.aims.setdefault(graph.vertices[vertex].node, []).append((vertex, axis))

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        for aim in self.aims.get(n.name, ()):
            self.found[aim] = sampled(value, aim[1], places(value, aim[1], self.rows))
        return value


def places(value: torch.Tensor, axis: int, rows: float) -> torch.Tensor:
    """Some places of an example, so many that all examples together give that many rows."""
    count = math.prod(value.shape) // (len(value) * value.shape[axis])
    return chosen(count, math.ceil(rows / len(value)))


def chosen(count: int, some: int) -> torch.Tensor:
    """Some numbers below `count`, always the same ones."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))[:some]


def sampled(value: torch.Tensor, axis: int, at: torch.Tensor) -> torch.Tensor:
    """The channels [examples, places, channels] at some places."""
    value = value.movedim(axis, -1)
    return value.flatten(1, -2)[:, at] if value.ndim > 2 else value[:, None]


def patches(layer: Linear, x: torch.Tensor, sizes: Sequence[int], at: torch.Tensor) -> torch.Tensor:
    """What a layer reads [examples, places, inputs] for some places of its output.

    `sizes` are those of the output without examples and channels.
    """
    if isinstance(layer, nn.Linear):
        return sampled(x, -1, at)
    assert not isinstance(layer.padding, str)
    x = F.pad(x, [p for pad in reversed(layer.padding) for p in (pad, pad)])
    # A place is a number in the flattened output [height, width]. Its patch is one in the flattened
    # input: axis by axis, the last first, `line` has where the kernel reads along the axis, times
    # the elements of a step there, and `index` [places, kernel positions] is the sum so far.
    index = at.new_zeros((1, 1))
    rest, stride = at, 1
    for axis in reversed(range(len(sizes))):
        where = (rest % sizes[axis]) * layer.stride[axis]
        inside = torch.arange(layer.kernel_size[axis]) * layer.dilation[axis]
        line = (where[:, None] + inside) * stride  # [places, kernel]
        index = (line[:, :, None] + index[:, None, :]).flatten(1)
        rest, stride = rest // sizes[axis], stride * x.shape[2 + axis]
    found: torch.Tensor = x.flatten(2)[:, :, index.flatten()].unflatten(2, index.shape)
    return found.transpose(1, 2).flatten(2)


@dataclass
class Sums:
    """Moments of inputs u [rows, inputs] and of what is missing r [rows, channels]."""

    count: int
    u: torch.Tensor
    r: torch.Tensor
    uu: torch.Tensor
    ru: torch.Tensor

    @classmethod
    def of(cls, u: torch.Tensor, r: torch.Tensor) -> Sums:
        mean_u, mean_r = u.mean(0), r.mean(0)
        u, r = u - mean_u, r - mean_r  # so that sums in single precision lose little
        uu, ru = (u.T @ u).double(), (r.T @ u).double()
        return cls(len(u), mean_u.double(), mean_r.double(), uu, ru)

    def __add__(self, other: Sums) -> Sums:
        # moments about two means, moved to the mean of both (Chan, Golub & LeVeque 1979): each
        # cross moment gains the outer product of the difference of means, times n₁n₂ / n
        count = self.count + other.count
        share, weight = other.count / count, self.count * other.count / count
        du, dr = other.u - self.u, other.r - self.r
        return Sums(
            count,
            self.u + share * du,
            self.r + share * dr,
            self.uu + other.uu + weight * torch.outer(du, du),
            self.ru + other.ru + weight * torch.outer(dr, du),
        )

    def about_zero(self) -> Sums:
        """The same with no means taken off, for layers without any bias."""
        uu = self.uu + self.count * torch.outer(self.u, self.u)
        ru = self.ru + self.count * torch.outer(self.r, self.u)
        return Sums(self.count, torch.zeros_like(self.u), torch.zeros_like(self.r), uu, ru)

    def solve(self, ridge: float) -> torch.Tensor:
        """D [channels, inputs]."""
        diagonal = self.uu.diagonal().mean()
        if not 0 < diagonal < math.inf or ridge == math.inf:
            return torch.zeros_like(self.ru)
        identity = torch.eye(len(self.uu), dtype=self.uu.dtype, device=self.uu.device)
        factor = torch.linalg.cholesky(self.uu + ridge * diagonal * identity)
        return torch.cholesky_solve(self.ru.T, factor).T

    def error(self, change: torch.Tensor, bias: torch.Tensor) -> float:
        """Mean of ‖r − D u − bias‖², less what no D and bias change."""
        rest = (self.r - bias - change @ self.u).square().sum()
        spread = ((change @ self.uu) * change).sum() - 2 * (change * self.ru).sum()
        return float(spread / self.count + rest)


def fitted(halves: Sequence[Sums], biased: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The change of the weight and of the bias; the ridge is the best for the second half.

    If none of them makes the second half better, only the bias changes, or nothing.
    """
    first, second = halves if biased else [sums.about_zero() for sums in halves]
    both = first + second

    def error(ridge: float) -> float:
        change = first.solve(ridge)
        return second.error(change, first.r - change @ first.u)

    errors = {ridge: error(ridge) for ridge in (*RIDGES, math.inf)}
    best = min(errors, key=lambda ridge: errors[ridge])
    nothing = torch.zeros_like(both.ru)
    if not errors[best] < second.error(nothing, torch.zeros_like(first.r)):
        return nothing, torch.zeros_like(first.r)
    change = both.solve(best)
    return change, both.r - change @ both.u


class Refit:
    """A layer, and the batch norm folded into it, whose weights come from the calibration data.

    Args:
        layer: with its path.
        norm: likewise, or None. It keeps its variance, and its mean takes the bias.
        targets: what the unpruned network gives.
        goal: whose value is fitted.
        keep: which channels remain.
    """

    def __init__(
        self, layer: tuple[str, Any], norm: tuple[str, Any] | None, targets: Targets,
        goal: Aim, keep: tuple[bool, ...] | None,
    ) -> None:  # fmt: skip
        (self.path, self.layer), self.norm = layer, norm
        self.targets, self.goal, self.keep = targets, goal, keep
        self._weights: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.tensors: dict[str, torch.Tensor] = {}
        targets.ask(goal)

    @property
    def known(self) -> bool:
        """Whether there are weights."""
        return self._weights is not None

    def __call__(self, x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        """The layer and its norm with these weights."""
        assert self._weights is not None
        return apply(self.layer, x, self._weights)

    def learn(self, pieces: Iterable[Sequence[Any]]) -> None:
        """Fit the layer; a piece has its input and, if its goal is a sum, the other summand."""
        rows, halves, begin = self.targets.rows(self.goal), dict[int, Sums](), 0
        for values, goal, inputs in zip(pieces, rows, self.targets.pieces, strict=True):
            u, r = self._missing(values, goal)
            size = batch_size(inputs)
            # u [rows of examples, places, inputs]: an example may have several rows, as tokens do;
            # halves go by examples, since rows of one are alike
            example = begin + torch.arange(len(u)) * size // len(u)
            for half in (0, 1):
                mine = (example % 2 == half).nonzero().flatten()
                if len(mine):
                    sums = Sums.of(u[mine].flatten(0, 1), r[mine].flatten(0, 1))
                    halves[half] = halves[half] + sums if half in halves else sums
            begin += size
        self._take(*fitted([halves[0], halves[1]], self.biased))

    @property
    def biased(self) -> bool:
        """Whether there is something that a bias can go into."""
        return self.norm is not None or self.layer.bias is not None

    def _missing(
        self, values: Sequence[Any], goal: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's inputs, and how much more it would have to give, at the places."""
        x, others = values[0], values[1:]
        axis = self.goal[1]
        sizes = self._sizes(x)
        at = chosen(math.prod(sizes), goal.shape[1])
        u = patches(self.layer, x, sizes, at)
        weight = self.layer.weight.flatten(1)
        here = F.linear(u, weight, self.layer.bias)
        if self.keep is not None:
            goal = goal[..., torch.tensor(self.keep, device=goal.device)]
        for other in others:
            goal = goal - sampled(other, axis, at)
        if self.norm is None:
            return u, goal - here
        # the norm gives scale · y + shift, which is to be the goal: y misses this much before it
        scale, shift = self._affine()
        missing = (goal - shift) / scale - here
        return u, torch.where(scale.abs() > SMALL, missing, torch.zeros_like(missing))

    def _sizes(self, x: torch.Tensor) -> Sequence[int]:
        """Those of the layer's output without examples and channels."""
        if isinstance(self.layer, nn.Linear):
            return x.shape[1:-1]
        ways = zip(
            x.shape[2:], self.layer.kernel_size, self.layer.stride, self.layer.padding,
            self.layer.dilation, strict=True,
        )  # fmt: skip
        return [(n + 2 * pad - d * (k - 1) - 1) // step + 1 for n, k, step, pad, d in ways]

    def _affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.norm is not None
        norm = self.norm[1]
        return affine(norm, norm.running_mean, norm.running_var)

    def _take(self, change: torch.Tensor, bias: torch.Tensor) -> None:
        layer, dtype = self.layer, self.layer.weight.dtype
        weight = layer.weight + change.to(dtype).reshape(layer.weight.shape)
        self.tensors = {f"{self.path}.weight": weight}
        if self.norm is not None:
            path, norm = self.norm
            mean = norm.running_mean - bias.to(norm.running_mean.dtype)
            self.tensors[f"{path}.running_mean"] = mean
            self._weights = scaled(weight, layer.bias, *affine(norm, mean, norm.running_var))
            return
        moved = None if layer.bias is None else layer.bias + bias.to(dtype)
        if moved is not None:
            self.tensors[f"{self.path}.bias"] = moved
        self._weights = weight, moved
