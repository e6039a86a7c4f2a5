"""Sizes beside the batch: which of them a program takes from the live input, and which it froze.

Lengths, heights and widths are varied on a model's example. Where the model itself runs, the traced
program has to give what the model gives; where it does not, it froze that size, and whatever runs
the program refuses others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy  # type: ignore[import-untyped]  # which torch brings
import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import ObjectiveError
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


@dataclass(frozen=True)
class Condition:
    """What the model's Python code found of the sizes of its inputs, and decided by.

    Args:
        text: in words of Python, such as "x.shape[2] % 8 == 0".
        expression: of sympy.
        axes: which size each of its symbols is.
    """

    text: str
    expression: Any
    axes: Mapping[Any, Axis]

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Whether it is so for these tensors, too."""
        sizes = {symbol: leaves[place].shape[axis] for symbol, (place, axis) in self.axes.items()}
        return bool(self.expression.xreplace(sizes))


def spelled(inputs: Mapping[str, Any]) -> list[str]:
    """All tensors and other leaves of named inputs as Python writes them.

    Examples:
        >>> from edgewise.tracing.sizes import spelled
        >>> spelled({"x": torch.zeros(2), "more": {"ids": torch.zeros(2)}})
        ['x', "more['ids']"]
    """
    paths: list[Any] = [path for path, _ in pytree.tree_flatten_with_path(dict(inputs))[0]]
    return [f"{path[0].key}{pytree.keystr(path[1:])}" for path in paths]


def not_one(inputs: Mapping[str, Any], axes: Sequence[Axis]) -> Iterator[Condition]:
    """That axes have another size than one."""
    names = spelled(inputs)
    for place, axis in axes:
        text = f"{names[place]}.shape[{axis}]"
        symbol = sympy.Symbol(text, integer=True)
        yield Condition(f"{text} != 1", sympy.Ne(symbol, 1), {symbol: (place, axis)})


def any_batch(conditions: Sequence[Condition], args: tuple[Any, ...]) -> bool:
    """Whether conditions hold for batches of all sizes."""
    example = pytree.tree_leaves(args)
    size = batch_size(args)

    def grown(leaf: Any, batch: int) -> Any:
        batched = isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] == size
        return leaf[:1].detach().expand(batch, *leaf.shape[1:]) if batched else leaf

    batches = ([grown(leaf, batch) for leaf in example] for batch in BATCHES)
    return all(condition.holds(leaves) for leaves in batches for condition in conditions)


@dataclass(frozen=True)
class OnlySizes:
    """A hook before `forward` that refuses sizes that a program froze.

    Args:
        names: of the inputs, in their order.
        sizes: of frozen axes, what the example had: (input tensor, axis, size).
        reason: what froze them, to end a sentence with.
        conditions: that sizes have to meet.
    """

    names: tuple[str, ...]
    sizes: tuple[tuple[int, int, int], ...]
    reason: str
    conditions: tuple[Condition, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes or self.conditions)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ObjectiveError where an input has another size on such an axis."""
        given = [*args, *(kwargs[name] for name in self.names[len(args) :] if name in kwargs)]
        self.check(given, type(module).__name__)

    def check(self, inputs: Any, subject: str) -> None:
        """Raise ObjectiveError unless inputs have the sizes of the example where it counts."""
        leaves = pytree.tree_leaves(inputs)
        for place, axis, size in self.sizes:
            leaf = leaves[place] if place < len(leaves) else None
            if not isinstance(leaf, torch.Tensor) or axis >= leaf.ndim:
                continue
            if leaf.shape[axis] != size:
                raise ObjectiveError(
                    f"{subject} got input {place} of shape {tuple(leaf.shape)}, but its axis "
                    f"{axis} must have size {size}, as in the traced example: {self.reason}. "
                    f"Give it that size, or trace the model with one of {leaf.shape[axis]}."
                )
        for condition in self.conditions:
            if not condition.holds(leaves):
                shapes = [tuple(v.shape) for v in leaves if isinstance(v, torch.Tensor)]
                raise ObjectiveError(
                    f"{subject} got inputs of shapes {shapes}, but {condition.text} must hold, as "
                    f"in the traced example: {self.reason}. Trace the model with such inputs."
                )


ALL = OnlySizes((), (), "")  # allows all


def only(module: nn.Module, guard: OnlySizes) -> nn.Module:
    """The module, refusing other sizes than a guard allows; as it was where that allows all."""
    if guard:
        module.register_forward_pre_hook(guard, with_kwargs=True)
    return module


def frozen_axes(example: Any, varied: Varied) -> tuple[tuple[int, int, int], ...]:
    """The axes of a variation with the sizes that the example has there."""
    leaves = pytree.tree_leaves(example)
    return tuple((place, axis, int(leaves[place].shape[axis])) for place, axis in sorted(varied))
