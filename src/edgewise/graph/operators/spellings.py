"""The public names that one operator has in torch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def spelled(names: str) -> list[Any]:
    """Every public spelling of these operators: torch.x, torch.nn.functional.x and Tensor.x."""
    found: list[Any] = []
    for name in names.split():
        places = [getattr(module, name, None) for module in (torch, F)]
        places += [f"Tensor.{name}"] if hasattr(torch.Tensor, name) else []
        assert any(places), name
        found += [place for place in places if place is not None]
    return found


def modules(names: str) -> list[type[nn.Module]]:
    return [getattr(nn, name) for name in names.split()]


def aten(names: str) -> list[Any]:
    """ATen operators that torch offers under no public name."""
    return [
        getattr(getattr(torch.ops.aten, n.split(".")[0]), n.split(".")[1]) for n in names.split()
    ]
