"""Sizes beside the batch: which of them a program takes from the live input, and which it froze.

Lengths, heights and widths are varied on a model's example. Where the model itself runs, the traced
program has to give what the model gives; where it does not, it froze that size, and whatever runs
the program refuses others.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from ..values.nested import batch_size

Axis = tuple[int, int]  # a tensor by its place among all of the inputs, and one of its axes
Varied = Mapping[Axis, int]  # sizes in place of the example's
STEP = 32  # by which sizes that it divides change: strides and windows divide it, too
LARGE = 4 * STEP  # sizes from here on shrink
BATCHES = (1, 2, 3, 4, 5, 7, 8, 16, 64, 2**10, 2**20)  # that conditions are tried for


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


def changed(example: Any, other: Any, batch: bool = False) -> dict[Axis, int]:
    """Where inputs have another size than an example, batches aside (or not), and which."""
    pairs = zip(pytree.tree_leaves(example), pytree.tree_leaves(other), strict=False)
    return {
        (place, axis): int(size)
        for place, (was, now) in enumerate(pairs)
        if isinstance(was, torch.Tensor) and isinstance(now, torch.Tensor) and was.ndim == now.ndim
        for axis, size in enumerate(now.shape)
        if (batch or axis > 0) and size != was.shape[axis]
    }


class Condition(NamedTuple):
    """What the model's Python code found of the sizes of its inputs, and decided by; plain data.

    Args:
        text: in words of Python, such as "x.shape[2] % 8 == 0".
        code: the same of short names.
        axes: which size each of these is: (name, input tensor, axis).
    """

    text: str
    code: str
    axes: tuple[tuple[str, int, int], ...]

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Whether it is so for these tensors, too."""
        sizes = {name: leaves[place].shape[axis] for name, place, axis in self.axes}
        return bool(eval(self.code, dict(_WORDS), sizes))  # noqa: S307 - written by sympy

    @property
    def places(self) -> set[Axis]:
        """The axes that it is about."""
        return {(place, axis) for _, place, axis in self.axes}


_WORDS = {"max": max, "min": min, "abs": abs, "math": math, "torch": torch}


def spelled(inputs: Mapping[str, Any]) -> list[str]:
    """All tensors and other leaves of named inputs as Python writes them.

    Examples:
        >>> from edgewise.tracing.sizes import spelled
        >>> spelled({"x": torch.zeros(2), "more": {"ids": torch.zeros(2)}})
        ['x', "more['ids']"]
    """
    paths: list[Any] = [path for path, _ in pytree.tree_flatten_with_path(dict(inputs))[0]]
    return [f"{path[0].key}{pytree.keystr(path[1:])}" for path in paths]


def batch_axes(inputs: Any, batch: int) -> list[Axis]:
    """The first axes that have the size of a batch."""
    leaves = enumerate(pytree.tree_leaves(inputs))
    tensors = ((place, v) for place, v in leaves if isinstance(v, torch.Tensor) and v.ndim)
    return [(place, 0) for place, v in tensors if v.shape[0] == batch]


def not_one(inputs: Mapping[str, Any], axes: Sequence[Axis]) -> Iterator[Condition]:
    """That axes have another size than one."""
    names = spelled(inputs)
    for place, axis in axes:
        yield Condition(f"{names[place]}.shape[{axis}] != 1", "s != 1", (("s", place, axis),))


def any_batch(conditions: Sequence[Condition], args: tuple[Any, ...]) -> bool:
    """Whether conditions hold for batches of all sizes."""
    example = pytree.tree_leaves(args)
    size = batch_size(args)

    def grown(leaf: Any, batch: int) -> Any:
        batched = isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] == size
        return leaf[:1].detach().expand(batch, *leaf.shape[1:]) if batched else leaf

    batches = ([grown(leaf, batch) for leaf in example] for batch in BATCHES)
    return all(condition.holds(leaves) for leaves in batches for condition in conditions)


def frozen_axes(example: Any, varied: Varied) -> tuple[tuple[int, int, int], ...]:
    """The axes of a variation with the sizes that the example has there."""
    leaves = pytree.tree_leaves(example)
    return tuple((place, axis, int(leaves[place].shape[axis])) for place, axis in sorted(varied))
