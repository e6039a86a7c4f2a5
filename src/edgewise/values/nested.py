"""Tensors in nested values: lists, tuples, dicts and dataclasses of them."""

import dataclasses
from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

IGNORED = -100  # a label that cross-entropy leaves out
T = TypeVar("T")


def leaves_of(value: Any) -> list[Any]:
    """The leaves of nested lists, tuples, dicts and dataclasses, in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [x for f in dataclasses.fields(value) for x in leaves_of(getattr(value, f.name))]
    leaves = pytree.tree_leaves(value)
    return [
        x
        for leaf in leaves
        for x in (leaves_of(leaf) if dataclasses.is_dataclass(leaf) else [leaf])
    ]


def named_leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """The same leaves, each with what leads to it, as it is written in Python.

    Examples:
        >>> from edgewise.values.nested import named_leaves
        >>> named_leaves({"a": [1, 2]})
        [("['a'][0]", 1), ("['a'][1]", 2)]
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(f"{path}.{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value)]
        return [leaf for place, part in parts for leaf in named_leaves(part, place)]
    found = []
    for keys, leaf in pytree.tree_flatten_with_path(value)[0]:
        place = path + pytree.keystr(keys)
        found += named_leaves(leaf, place) if dataclasses.is_dataclass(leaf) else [(place, leaf)]
    return found


def logits_of(outputs: Any) -> Any:
    """The logits that a model gives, by themselves or among other values."""
    found: Any = outputs.get("logits", outputs) if isinstance(outputs, Mapping) else outputs
    return found


def copies_of(value: Any) -> Any:
    """The same with its tensors copied, for code that may write into them."""
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, value)


def holds_tensor(value: Any) -> bool:
    """Whether there is a tensor anywhere in a value."""
    return bool(tensors_of(value))


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors of a value, in order."""
    return [leaf for leaf in leaves_of(value) if isinstance(leaf, torch.Tensor)]


def shapes_of(value: Any) -> str:
    """The shapes of a value's tensors in words."""
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors_of(value))


def named_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters and buffers, by the first name that it gives each."""
    return dict([*module.named_parameters(), *module.named_buffers()])


def device_of(value: Any) -> torch.device | None:
    """Where the first tensor of a value, or weight of a module, is; None if there is none.

    Examples:
        >>> from edgewise.values.nested import device_of
        >>> device_of([1, {"ids": torch.zeros(2)}])
        device(type='cpu')
    """
    module = isinstance(value, torch.nn.Module)
    leaves = chain(value.parameters(), value.buffers()) if module else leaves_of(value)
    return next((leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor)), None)


def moved(value: T, device: torch.device | None) -> T:
    """The same with its tensors on a device, where one is given."""
    if device is None:
        return value
    found: T = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), value)
    return found


def joined(measure: Any, targets: T, outputs: Any) -> T:
    """The targets where the outputs are; a loss or metric that is a module goes there itself."""
    home = device_of(outputs)
    if home is not None and isinstance(measure, torch.nn.Module):
        measure.to(home)
    return moved(targets, home)


def judged(measure: Any, outputs: Any, targets: Any) -> Any:
    """What a loss or a metric gives where the outputs are, of targets that it may write into."""
    return measure(outputs, joined(measure, copies_of(targets), outputs))


def doubled(value: T, of: int) -> T:
    """The same with every tensor of `of` examples twice as long, its values repeated.

    Examples:
        >>> from edgewise.values.nested import doubled
        >>> doubled([torch.zeros(1, 3), 2.0], of=1)[0].shape
        torch.Size([2, 3])
    """

    def twice(leaf: Any) -> Any:
        grows = isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] == of
        return torch.cat([leaf, leaf]) if grows else leaf

    found: T = pytree.tree_map(twice, value)
    return found


def batch_size(value: Any) -> int:
    """Dimension 0 of the first tensor that has one; tensors of another size are not batched."""
    leaves = pytree.tree_leaves(value)
    return next((int(v.shape[0]) for v in leaves if isinstance(v, torch.Tensor) and v.ndim), 1)
