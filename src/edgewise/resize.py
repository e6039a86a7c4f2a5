"""Bringing a module's attributes in line after its tensors were cut."""

from __future__ import annotations

from typing import Any


def conv_resize(module: Any) -> None:
    outer, inner = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if depthwise:
        module.groups = module.in_channels = outer * module.in_channels // module.out_channels
    else:
        module.in_channels = inner * module.groups
    module.out_channels = outer


def conv_transpose_resize(module: Any) -> None:
    module.in_channels, module.out_channels = module.weight.shape[:2]


def linear_resize(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def features_resize(module: Any) -> None:
    tensors = (module.weight, module.running_mean)
    module.num_features = next((len(t) for t in tensors if t is not None), module.num_features)


def prelu_resize(module: Any) -> None:
    module.num_parameters = len(module.weight)
