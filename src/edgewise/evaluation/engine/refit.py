"""Layers fitted in closed form, so that a pruned network gives what the unpruned one gives.

With u the layer's inputs (the patch of a convolution) and r what is missing from its goal, the map
from u to r of least squares is added to the weight, and what it leaves of the mean goes into the
bias, or into the mean of the batch norm.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_norm import Linear, affine, apply, scaled
from .least_squares import Fit, Inputs
from .options import Memory

SMALL = 1e-6  # a norm that scales a channel by less hides what its layer does


def chosen(first: int, places: int, density: float) -> Tensor:
    """Some rows of [first, places], always the same: `density` places, the same ones of each."""
    random = torch.Generator().manual_seed(places)
    at = torch.randperm(places, generator=random)[: math.ceil(density)]
    return (torch.arange(first)[:, None] * places + at).flatten()


def sampled(value: Tensor, axis: int, at: Tensor) -> Tensor:
    """The channels [rows, channels] at places, numbers in the value without its channels."""
    value = value.movedim(axis, -1)
    found: Tensor = value[torch.unravel_index(at, value.shape[:-1])]
    return found


def some_rows(value: Tensor, axis: int, density: float) -> Tensor:
    """The channels [rows, channels] at some places, `density` of them for each first index."""
    places = math.prod(value.shape) // (len(value) * value.shape[axis])
    return sampled(value, axis, chosen(len(value), places, density).to(value.device))


def patches(layer: Linear, x: Tensor, sizes: Sequence[int], at: Tensor) -> Tensor:
    """What a layer reads [rows, inputs] for some places of its output.

    `sizes` are those of the output without examples and channels.
    """
    if isinstance(layer, nn.Linear):
        return sampled(x, -1, at)
    assert not isinstance(layer.padding, str)
    x = F.pad(x, [p for pad in reversed(layer.padding) for p in (pad, pad)])
    # A place is a number in the flattened output [height, width]. Its patch is one in the flattened
    # input: axis by axis, the last first, `line` has where the kernel reads along the axis, times
    # the elements of a step there, and `index` [rows, kernel positions] is the sum so far.
    index = at.new_zeros((1, 1))
    rest, stride = at, 1
    for axis in reversed(range(len(sizes))):
        where = (rest % sizes[axis]) * layer.stride[axis]
        inside = torch.arange(layer.kernel_size[axis], device=at.device) * layer.dilation[axis]
        line = (where[:, None] + inside) * stride  # [rows, kernel]
        index = (line[:, :, None] + index[:, None, :]).flatten(1)
        rest, stride = rest // sizes[axis], stride * x.shape[2 + axis]
    found: Tensor = x.flatten(2).mT[rest[:, None], index]  # [rows, kernel positions, channels]
    return found.mT.flatten(1)


class Refit:
    """A layer, and the batch norm folded into it, whose weights come from the calibration data.

    Args:
        layer: with its path.
        norm: likewise, or None. It keeps its variance, and its mean takes the bias.
        inputs: the sums of what the layer reads, shared with others that do.
        memory: in which these are kept for the others.
        axis: of the channels of the goal.
        keep: which of them remain.
        each: first indices of a value that one example has.
        density: rows for each first index.
    """

    def __init__(
        self, layer: tuple[str, Any], norm: tuple[str, Any] | None, inputs: Inputs,
        memory: Memory, axis: int, keep: tuple[bool, ...] | None, each: int, density: float,
    ) -> None:  # fmt: skip
        (self.path, self.layer), self.norm = layer, norm
        self.inputs, self.memory = inputs, memory
        self.axis, self.keep, self.each, self.density = axis, keep, each, density
        self._weights: tuple[Tensor, Tensor | None] | None = None
        self.tensors: dict[str, Tensor] = {}

    @property
    def known(self) -> bool:
        """Whether there are weights."""
        return self._weights is not None

    def __call__(self, x: Tensor, *_: Tensor) -> Tensor:
        """The layer and its norm with these weights."""
        assert self._weights is not None
        return apply(self.layer, x, self._weights)

    def learn(self, pieces: Iterable[Sequence[Any]]) -> None:
        """Fit the layer; a piece has its input, the other summands, and rows of the goal."""
        fit, begin = Fit(self.inputs, *self._given), 0
        for x, *others, goal in pieces:
            sizes = self._sizes(x)
            at = chosen(len(x), math.prod(sizes), self.density).to(x.device)
            # halves go by examples, since rows of one are alike
            example = begin + at // (math.prod(sizes) * self.each)
            u = patches(self.layer, x, sizes, at)
            fit.add(u, self._wanted(others, goal, at), example % 2)
            begin += len(x) // self.each
        self._take(*fit.solve())
        self.inputs.release(self.memory)

    @cached_property
    def _affine(self) -> tuple[Any, Any, Any]:
        """Scale and shift of the norm, and which channels it shows."""
        if self.norm is None:
            return 1.0, 0.0, 1.0
        norm = self.norm[1]
        scale, shift = affine(norm, norm.running_mean, norm.running_var)
        shows = scale.abs() > SMALL
        return torch.where(shows, scale, torch.inf), shift, shows

    @property
    def _given(self) -> tuple[Tensor, Tensor]:
        """Weight and bias that the layer has, of the channels that are shown."""
        weight = self.layer.weight.flatten(1)
        bias = weight.new_zeros(len(weight)) if self.layer.bias is None else self.layer.bias
        *_, shows = self._affine
        return (weight.mT * shows).mT, bias * shows

    def _wanted(self, others: Sequence[Tensor], goal: Tensor, at: Tensor) -> Tensor:
        """What the layer would have to give: its norm gives scale · y + shift."""
        if self.keep is not None:
            goal = goal[:, torch.tensor(self.keep, device=goal.device)]
        for other in others:
            goal = goal - sampled(other, self.axis, at)
        scale, shift, _ = self._affine
        return goal if self.norm is None else (goal - shift) / scale

    def _sizes(self, x: Tensor) -> Sequence[int]:
        """Those of the layer's output without examples and channels."""
        if isinstance(self.layer, nn.Linear):
            return x.shape[1:-1]
        ways = zip(
            x.shape[2:], self.layer.kernel_size, self.layer.stride, self.layer.padding,
            self.layer.dilation, strict=True,
        )  # fmt: skip
        return [(n + 2 * pad - d * (k - 1) - 1) // step + 1 for n, k, step, pad, d in ways]

    def _take(self, change: Tensor, bias: Tensor) -> None:
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
