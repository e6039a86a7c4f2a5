"""Operators that treat whatever lies along the first dimension of their inputs alike."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from .batch_norm import BATCH_NORMS, plain

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh,
    nn.Linear, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
_FUNCTIONS = (
    torch.relu, torch.sigmoid, torch.tanh, torch.add, torch.sub, torch.mul, operator.add,
    operator.sub, operator.mul, F.relu, F.gelu, F.silu, F.hardswish, F.sigmoid,
)  # fmt: skip


def least_dimensions(node: fx.Node, target: Any) -> int | None:
    """Dimensions from which on the first one is of no concern to a node; None if it always may be.

    Args:
        node: of a program.
        target: the module or function that it calls.
    """
    if not node.args or not all(isinstance(argument, fx.Node) for argument in node.args):
        return None
    if isinstance(target, nn.Module):
        return _of_layer(target) if plain(target) and not node.kwargs else None
    if target is F.scaled_dot_product_attention and len(node.args) == 3 and not node.kwargs:
        return 3
    simple = any(target is function for function in _FUNCTIONS)
    settings = [value for key, value in node.kwargs.items() if key != "approximate"]
    return 1 if simple and not any(settings) else None


def _of_layer(layer: nn.Module) -> int | None:
    if isinstance(layer, _CONVOLUTIONS):
        return layer.weight.ndim if type(layer) in _CONVOLUTIONS else None
    if type(layer) in BATCH_NORMS:
        fixed = layer.running_mean is not None and not layer.training
        return 2 if fixed else None
    if type(layer) is nn.LayerNorm:
        return len(layer.normalized_shape) + 1
    return 2 if type(layer) in _LAYERS else None
