"""Copies of tensors and modules that keep only what remains of their channels."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from ..graph.operators.absence import Keep
from ..graph.operators.resize import normed
from ..graph.operators.runtime import RaggedGroupNorm
from ..graph.operators.table import TABLE, Rule
from ..graph.vertices import Vertex

_ORIGINAL = "parametrizations.weight.original"
Slices = Sequence[Keep | None]


def cut_tensor(tensor: torch.Tensor, slices: Slices) -> torch.Tensor:
    with torch.no_grad():
        value = tensor.detach()
        for axis, keep in enumerate(slices):
            if keep is not None:
                index = torch.tensor(keep, device=tensor.device).nonzero().flatten()
                value = value.index_select(axis, index)
        value = value.clone() if value.data_ptr() == tensor.data_ptr() else value
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


def cut_module(
    whole: nn.Module, vertex: Vertex, slices: Sequence[Slices], sizes: tuple[int, ...]
) -> nn.Module:
    """A copy of a module with only what remains of its tensors.

    `sizes` are those of the groups of a group norm, or the shape a layer norm normalises over.
    """
    computed = normed(whole)  # of a class of its own, which cannot be copied but deeply
    module = copy.deepcopy(whole) if computed else copy.copy(whole)
    module._parameters = dict(whole._parameters)
    module._buffers = dict(whole._buffers)
    names = [*dict(whole.named_parameters()), *dict(whole.named_buffers())]
    if computed:
        originals: Any = module.parametrizations["weight"]  # type: ignore[index]
        weight = cut_tensor(cast(torch.Tensor, whole.weight), slices[names.index(f"{_ORIGINAL}1")])
        for number, value in enumerate(originals[0].right_inverse(weight)):
            before = getattr(originals, f"original{number}")
            setattr(originals, f"original{number}", nn.Parameter(value, before.requires_grad))
    for name, keep in zip(names, slices, strict=False):
        if name.startswith(_ORIGINAL):
            continue
        tensor = cut_tensor(getattr(whole, name), keep)
        place: Any = module._buffers if name in module._buffers else module._parameters
        place[name] = tensor
    return fitted(module, TABLE.rules[vertex.op], sizes)


def fitted(module: nn.Module, rule: Rule | None, sizes: tuple[int, ...]) -> nn.Module:
    """A module whose tensors were cut, with the numbers that say so."""
    if rule is not None and rule.resize is not None:
        rule.resize(module)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and sizes:
        module.normalized_shape = sizes
    if isinstance(module, nn.GroupNorm) and sizes:
        module.num_channels, module.num_groups = sum(sizes), len(sizes)
        return module if len(set(sizes)) == 1 else RaggedGroupNorm(module, sizes)
    return module
