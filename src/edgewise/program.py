"""The traced network as something to run, and what its values are made of."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .nested import device_of


@dataclass(frozen=True, eq=False)
class Program:
    """What a graph keeps to run and rewrite its network.

    Args:
        module: a private, functional copy of the model as fx, in eval mode.
        args: the example inputs, in the order of its placeholders.
        fixed: forward's other arguments, which are constants of the program.
        values: for nodes that give numbers rather than tensors, what they gave on the example.
        doubled: the same when the batch is twice as large (empty if the model refuses that).
        batch: examples in `args`.
        modes: the path of every module of the user's model, and whether it was in train mode.
    """

    module: fx.GraphModule
    args: tuple[Any, ...]
    fixed: Mapping[str, Any]
    values: Mapping[str, Any]
    doubled: Mapping[str, Any]
    batch: int
    modes: Mapping[str, bool]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs, in the order of `args`."""
        nodes = self.module.graph.find_nodes(op="placeholder")
        return tuple(str(node.target) for node in nodes)

    @property
    def device(self) -> torch.device:
        """Where the inputs are, as those of the example were."""
        return device_of(self.args) or torch.device("cpu")


def modes_of(module: nn.Module) -> dict[str, bool]:
    """The path of every module, and whether it is in train mode."""
    return {path: part.training for path, part in module.named_modules()}


def set_modes(module: nn.Module, modes: Mapping[str, bool]) -> nn.Module:
    """The module with the train and eval modes of the user's model, each by its path."""
    module.train(modes[""])
    for path, part in module.named_modules():
        part.training = modes.get(path, modes[""])
    return module


def attribute(module: nn.Module, path: str) -> Any:
    """What a dotted path leads to."""
    return operator.attrgetter(path)(module)
