"""The arguments of a model in a batch: as tensors, in a row or by name, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .errors import ObjectiveError

T = TypeVar("T")


def arguments(inputs: Any) -> tuple[Any, ...] | dict[str, Any]:
    """What a batch gives: a dict by name, or a tuple by place.

    Examples:
        >>> from edgewise.arguments import arguments
        >>> arguments(1), arguments([1, 2]), arguments({"ids": 1})
        ((1,), (1, 2), {'ids': 1})
    """
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)


def placed(inputs: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """What a batch gives as a tuple; a dict in the order of `names`.

    Raises:
        ObjectiveError: the dict has other names.

    Examples:
        >>> from edgewise.arguments import placed
        >>> placed({"mask": 1, "ids": 2}, ("ids", "mask"))
        (2, 1)
    """
    given = arguments(inputs)
    if isinstance(given, tuple):
        return given
    if given.keys() != set(names):
        raise ObjectiveError(
            f"A batch gives the inputs {', '.join(map(str, given))}; the traced model takes "
            f"{', '.join(names)}. Leave the others out, or trace it with all of them."
        )
    return tuple(given[name] for name in names)


def device_of(value: Any) -> torch.device | None:
    """Where the first tensor of something nested is; None if there is none.

    Examples:
        >>> from edgewise.arguments import device_of
        >>> device_of([1, {"ids": torch.zeros(2)}])
        device(type='cpu')
    """
    leaves = pytree.tree_iter(value)
    return next((leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor)), None)


def moved(value: T, device: torch.device | None) -> T:
    """The same with its tensors on a device, where one is given."""
    if device is None:
        return value
    found: T = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), value)
    return found


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's outputs for what a batch gives, wherever that lies."""
    given = arguments(inputs)
    if isinstance(model, nn.Module):
        given = moved(given, device_of([*model.parameters(), *model.buffers()]))
    return model(*given) if isinstance(given, tuple) else model(**given)
