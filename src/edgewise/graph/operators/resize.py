"""Bringing a module's attributes in line after its tensors were cut."""

from typing import Any

from torch import nn


def normed(module: nn.Module) -> bool:
    """Whether its weight is computed, by weight norm alone: it can then be another one."""
    lists: Any = getattr(module, "parametrizations", {})
    kinds = [type(kind).__name__ for one in lists.values() for kind in one]
    return list(lists) == ["weight"] and kinds == ["_WeightNorm"] and not module._forward_pre_hooks


def conv_resize(module: Any) -> None:
    outer, inner = module.weight.shape[:2]
    module.groups = _groups(module, outer, module.out_channels)
    module.in_channels, module.out_channels = inner * module.groups, outer


def conv_transpose_resize(module: Any) -> None:
    inner, outer = module.weight.shape[:2]
    module.groups = _groups(module, inner, module.in_channels)
    module.in_channels, module.out_channels = inner, outer * module.groups


def _groups(module: Any, channels: int, before: int) -> int:
    """How many groups remain: they go as a whole, so that each keeps its channels."""
    return 1 if module.groups == 1 else channels // (before // module.groups)


def embedding_resize(module: Any) -> None:
    module.embedding_dim = module.weight.shape[1]


def recurrent_resize(module: Any) -> None:
    first = "_l0" if isinstance(module, nn.RNNBase) else ""
    read = getattr(module, f"weight_hh{first}").shape[1]
    module.input_size = getattr(module, f"weight_ih{first}").shape[1]
    projects = getattr(module, "proj_size", 0)
    module.hidden_size = module.weight_hr_l0.shape[1] if projects else read
    if first:
        module.proj_size = read if projects else 0
        module._init_flat_weights()  # it keeps its tensors in a list, too


def linear_resize(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def features_resize(module: Any) -> None:
    tensors = (module.weight, module.running_mean)
    module.num_features = next((len(t) for t in tensors if t is not None), module.num_features)


def prelu_resize(module: Any) -> None:
    module.num_parameters = len(module.weight)
