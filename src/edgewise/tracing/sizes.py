"""Sizes beside the batch: which of them a program takes from the live input, and which it froze.

Lengths, heights and widths are varied on a model's example. Where the model itself runs, the traced
program has to give what the model gives; where it does not, it froze that size, and whatever runs
the program refuses others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

Axis = tuple[int, int]  # a tensor by its place among all of the inputs, and one of its axes
Varied = Mapping[Axis, int]  # sizes in place of the example's
STEP = 32  # by which sizes that it divides change: strides and windows divide it, too
LARGE = 4 * STEP  # sizes from here on shrink


def axes_by_size(value: Any) -> dict[int, list[Axis]]:
    """The axes of all tensors of nested inputs, by their size; neither batches nor single ones."""
    found: dict[int, list[Axis]] = {}
    for place, leaf in enumerate(pytree.tree_leaves(value)):
        for axis, size in enumerate(leaf.shape if isinstance(leaf, torch.Tensor) else ()):
            if axis > 0 and size > 1:
                found.setdefault(size, []).append((place, axis))
    return found


def variations(size: int, axes: Sequence[Axis]) -> Iterator[Varied]:
    """Other sizes for axes of one size, the most telling first.

    Heights and widths that differ from each other tell more than equal ones, but a mask of length
    x length takes no others. Large sizes shrink, since others take longer.
    """
    step = STEP if size % STEP == 0 else max(size // 2, 1)
    step = -step if size >= LARGE and size % STEP == 0 else step
    order = sorted({axis for _, axis in axes})
    if len(order) > 1:
        yield {(place, axis): size + step * (order.index(axis) + 1) for place, axis in axes}
    yield dict.fromkeys(axes, size + step)
    yield dict.fromkeys(axes, 2 * size)


def changed(example: Any, other: Any) -> dict[Axis, int]:
    """Where inputs have another size than an example, batches aside, and which."""
    pairs = zip(pytree.tree_leaves(example), pytree.tree_leaves(other), strict=False)
    return {
        (place, axis): int(size)
        for place, (was, now) in enumerate(pairs)
        if isinstance(was, torch.Tensor) and isinstance(now, torch.Tensor) and was.ndim == now.ndim
        for axis, size in enumerate(now.shape)
        if axis > 0 and size != was.shape[axis]
    }


def frozen_axes(example: Any, varied: Varied) -> tuple[tuple[int, int, int], ...]:
    """The axes of a variation with the sizes that the example has there."""
    leaves = pytree.tree_leaves(example)
    return tuple((place, axis, int(leaves[place].shape[axis])) for place, axis in sorted(varied))
