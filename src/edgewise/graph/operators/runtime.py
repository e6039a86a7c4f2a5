"""Functions that the code of a pruned model calls where no operator of torch does the job."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

Segments = Sequence[tuple[int, int]]


def assemble(x: Tensor, axis: int, segments: Segments, fill: float = 0.0) -> Tensor:
    """Channels of x picked and spread along an axis.

    Args:
        x: any tensor.
        axis: the axis of the channels.
        segments: (start, length) of each run to take from x; start -1 means `fill`.
        fill: what stands for channels that x does not have.

    Returns:
        The runs, joined along the axis.
    """
    if has_torch_function_unary(x):  # a tracer's proxy: stay one operator
        traced: Tensor = handle_torch_function(assemble, (x,), x, axis, segments, fill)
        return traced
    parts = []
    for start, length in segments:
        if start >= 0:
            parts.append(x.narrow(axis, start, length))
        else:
            shape = list(x.shape)
            shape[axis] = length
            parts.append(x.new_full(shape, fill))
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def largest(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """The values of `torch.max` along a dimension, whose gradient goes to one of them."""
    if has_torch_function_unary(x):
        traced: Tensor = handle_torch_function(largest, (x,), x, dim, keepdim)
        return traced
    return torch.max(x, dim, keepdim)[0]


def smallest(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """As `largest`, of `torch.min`."""
    if has_torch_function_unary(x):
        traced: Tensor = handle_torch_function(smallest, (x,), x, dim, keepdim)
        return traced
    return torch.min(x, dim, keepdim)[0]


def precision(x: Tensor, *limit: str) -> Any:
    """The dtype of x, or what `torch.finfo` calls a limit of that: "min", "eps"."""
    if has_torch_function_unary(x):
        return handle_torch_function(precision, (x,), x, *limit)
    return getattr(torch.finfo(x.dtype), limit[0]) if limit else x.dtype


def by_mode(training: bool, evaluating: Any, learning: Any) -> Any:
    """One of two arguments: `evaluating` in eval mode, `learning` in train mode."""
    return learning if training else evaluating


def segments(have: Sequence[bool], want: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """The runs that make the channels `want` of a tensor that holds the channels `have`."""
    runs: list[list[int]] = []
    position = 0
    for here, wanted in zip(have, want, strict=True):
        start = position if here else -1
        position += here
        if not wanted:
            continue
        follows = runs and (
            runs[-1][0] == -1 if start == -1 else runs[-1][0] >= 0 and sum(runs[-1]) == start
        )
        if follows:
            runs[-1][1] += 1
        else:
            runs.append([start, 1])
    return tuple((start, length) for start, length in runs)


def ragged_group_norm(
    x: Tensor, sizes: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Group normalisation over groups of unequal size.

    Args:
        x: [batch, sum(sizes), ...].
        sizes: channels of each group.
        weight: [sum(sizes)] or None.
        bias: [sum(sizes)] or None.
        eps: added to the variance.
    """
    if has_torch_function_unary(x):
        tail = (sizes, weight, bias, eps)
        traced: Tensor = handle_torch_function(ragged_group_norm, (x,), x, *tail)
        return traced
    parts = [F.group_norm(part, 1, eps=eps) for part in x.split(list(sizes), 1)]
    shape = (-1, *[1] * (x.ndim - 2))
    out = torch.cat(parts, 1)
    if weight is not None:
        out = out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


class RaggedGroupNorm(torch.nn.Module):
    """`ragged_group_norm` as a module, in the place of an nn.GroupNorm."""

    def __init__(self, norm: torch.nn.GroupNorm, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.eps = tuple(sizes), norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return ragged_group_norm(x, self.sizes, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, eps={self.eps}"
