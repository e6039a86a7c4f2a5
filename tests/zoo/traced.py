"""Graphs of the zoo, traced once in a process for all tests that only look at them."""

from functools import cache

import torch

import edgewise as ew

from .models import build

BRANCHES = ("edge", "layer")
WIDTHS = ("edge", "layer", "hidden", "heads", "channels")


@cache
def traced(
    name: str, kinds: tuple[str, ...] | str = BRANCHES, dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> ew.Graph:  # fmt: skip
    """A model's graph; widths are of three parts."""
    model, args = build(name, seed, dtype)
    return ew.trace(model, args, granularity=kinds, slices=3)
