"""Batch norms with fixed statistics are linear: they become part of the layer before them.

(conv(x) - mean) / sqrt(var + eps) * weight + bias is a convolution with scaled weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

Linear = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
Weights = tuple[torch.Tensor, torch.Tensor]
Moments = tuple[torch.Tensor, torch.Tensor, int]  # mean and biased variance [channels], count
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
PRECISE = (torch.float32, torch.float64)


class Norm:
    """A batch norm under recovery; its statistics come from the calibration data."""

    def __init__(self, path: str, module: Any) -> None:
        self.path, self.module = path, module
        self.mean: torch.Tensor | None = None
        self.var: torch.Tensor | None = None
        self._folded: Weights | None = None

    @property
    def known(self) -> bool:
        """Whether there are statistics."""
        return self.mean is not None

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The statistics, by the names in the pruned model."""
        assert self.mean is not None
        assert self.var is not None
        return {f"{self.path}.running_mean": self.mean, f"{self.path}.running_var": self.var}

    def learn(self, pieces: Iterable[Sequence[Any]]) -> None:
        """Take the mean and the unbiased variance of all pieces as one."""
        parts = [moments(x) for (x,) in pieces]
        dtype = self.module.running_mean.dtype
        counts = parts[0][0].new_tensor([n for *_, n in parts], dtype=torch.float64)
        total = counts.sum()
        share = (counts / total)[:, None]
        means = torch.stack([mean.double() for mean, *_ in parts])
        within = torch.stack([var.double() for _, var, _ in parts])
        mean = (share * means).sum(0)
        var = (share * (within + (means - mean).square())).sum(0)
        self.mean = mean.to(dtype)
        self.var = (var * (total / (total - 1))).to(dtype)

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise with these statistics."""
        shape = (-1, *[1] * (x.ndim - 2))
        scale, shift = (v.view(shape) for v in affine(self.module, self.mean, self.var))
        # without `out` the layout would be that of the shift
        return torch.addcmul(shift, x, scale, out=torch.empty_like(x) if out is None else out)

    def write(self, x: torch.Tensor) -> torch.Tensor:
        """The same, in place."""
        return self(x, out=x)

    def folded(self, layer: Linear) -> Weights:
        """Weight and bias of the layer with this norm in it."""
        if self._folded is None:
            scale, shift = affine(self.module, self.mean, self.var)
            self._folded = scaled(layer.weight, layer.bias, scale, shift)
        return self._folded


def moments(x: torch.Tensor) -> Moments:
    """Mean and biased variance of every channel, and how many values of one there are."""
    # torch.var_mean takes ten times as long over the outer dimensions of a tensor
    mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
    return mean, var, x.numel() // x.shape[1]


def affine(norm: Any, mean: Any, var: Any) -> Weights:
    """Scale and shift [channels] that do what a norm with these statistics does."""
    scale = torch.rsqrt(var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def scaled(
    weight: torch.Tensor, bias: torch.Tensor | None, scale: torch.Tensor, shift: torch.Tensor
) -> Weights:
    """Weight and bias of a layer whose output is scaled and shifted."""
    weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, shift if bias is None else bias * scale + shift


def apply(
    layer: Linear, x: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor | None]
) -> torch.Tensor:
    """The layer with other weights."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, *weights)
    result: torch.Tensor = layer._conv_forward(x, *weights)
    return result


def folds(
    nodes: Sequence[fx.Node], module: Callable[[fx.Node], Any], dimensions: Callable[[fx.Node], int]
) -> dict[fx.Node, fx.Node]:
    """The batch norms that can be folded, and the layers that they go into.

    Args:
        nodes: of a program.
        module: what a node calls, None if it is no module.
        dimensions: of what a node gives, 0 if unknown.
    """
    found: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        norm = module(node)
        if type(norm) not in BATCH_NORMS or not plain(norm) or norm.running_mean is None:
            continue
        source = next(iter(node.all_input_nodes))
        if len(source.users) > 1 or len(source.args) != 1 or len(node.args) != 1:
            continue
        layer = module(source)
        fits = type(layer) in LINEAR and plain(layer) and dimensions(source) == layer.weight.ndim
        if fits and layer.weight.dtype == norm.running_mean.dtype in PRECISE:
            found[node] = source
    return found


def plain(module: nn.Module) -> bool:
    """Whether a module does what its class does and nothing else."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module)


def is_layer(module: Any) -> bool:
    """Whether something is a plain linear layer or convolution."""
    return type(module) in LINEAR and plain(module)


def makes_memory(module: Any) -> bool:
    """Whether something is a layer or a norm, which gives new memory, no view of its input."""
    return type(module) in (*LINEAR, *BATCH_NORMS) and plain(module)
