"""Inputs of other sizes than an example's, at which a model runs: what an export keeps free."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import ObjectiveError
from ..tracing.agreement import drawn
from ..tracing.export_frontend import quiet
from ..tracing.sizes import Axis, Varied, axes_by_size, batch_axes, variations
from ..values.nested import batch_size, copies_of, doubled
from ..values.precision import full_precision

Inputs = Mapping[str, Any]  # by the names of a model's arguments


@dataclass(frozen=True)
class Case:
    """Inputs of another size, and what the model gives for them.

    Args:
        axes: that are of another size than the example's.
        inputs: drawn like the example.
        expected: the model's outputs.
        special: whether a file may refuse it: single examples, and sizes no number divides.
    """

    axes: frozenset[Axis]
    inputs: Inputs
    expected: Any
    special: bool = False


@dataclass(frozen=True)
class Sizes:
    """What is free in a model: an example, cases of other sizes, and axes it refuses, and why."""

    example: Inputs
    cases: tuple[Case, ...] = ()
    refused: Mapping[str, frozenset[Axis]] = field(default_factory=dict)


def outputs(model: nn.Module, inputs: Inputs) -> Any:
    """What a model gives for inputs that it may write into."""
    with torch.no_grad(), full_precision(), quiet():
        return model(**copies_of(dict(inputs)))


def free_sizes(model: nn.Module, example: Inputs) -> Sizes:
    """The batch, lengths and image sizes that a model takes besides the example's.

    Args:
        model: in eval mode.
        example: inputs that it takes; a batch of one is doubled where that runs.
    """
    return _Search(model, example).run()


class _Search:
    def __init__(self, model: nn.Module, example: Inputs) -> None:
        self.model, self.example = model, example
        self.cases: list[Case] = []
        self.refused: dict[Axis, str] = {}

    def run(self) -> Sizes:
        batch = batch_size(self.example)
        axes = frozenset(batch_axes(self.example, batch))
        if batch == 1 and self._add(axes, larger := doubled(self.example, of=1)):
            self.example, batch = larger, 2  # torch.export would take a one for a constant
            self.cases.clear()
        for size in (batch + 1, 1) if batch > 1 else ():
            self._add(axes, drawn(self.example, batch, size), special=size == 1)
        for group in axes_by_size(self.example).values():
            self._group(group, batch)
        free = {axis for case in self.cases for axis in case.axes}
        reasons: dict[str, frozenset[Axis]] = {}
        for axis, reason in self.refused.items():
            if axis not in free:
                reasons[reason] = reasons.get(reason, frozenset()) | {axis}
        return Sizes(self.example, tuple(self.cases), reasons)

    def _group(self, axes: Sequence[Axis], batch: int) -> None:
        """Axes of one size: all together, or else those of one place, or else one by one."""
        for part in _parts(axes):
            if any(self._varied(sizes, batch) for sizes in variations(_size(self, part), part)):
                self._varied({a: _size(self, [a]) + 1 for a in part}, batch, special=True)
                rest = [axis for axis in axes if axis not in part]
                if rest:
                    self._group(rest, batch)
                return

    def _varied(self, sizes: Varied, batch: int, special: bool = False) -> bool:
        return self._add(frozenset(sizes), drawn(self.example, batch, batch, sizes), special)

    def _add(self, axes: frozenset[Axis], inputs: Inputs, special: bool = False) -> bool:
        """Whether the model runs on inputs; they are kept as a case where it does."""
        try:
            expected = outputs(self.model, inputs)
        except ObjectiveError as error:  # pruning or tracing fixed it
            self.refused = dict.fromkeys(axes, str(error)) | self.refused
        except Exception:  # noqa: BLE001 - whatever torch raises where sizes do not fit
            return False
        else:
            self.cases.append(Case(axes, inputs, expected, special))
            return True
        return False


def _parts(axes: Sequence[Axis]) -> Iterator[list[Axis]]:
    """Subsets of axes, the largest first."""
    yield list(axes)
    numbers = sorted({axis for _, axis in axes})
    if len(numbers) > 1:
        yield from ([pair for pair in axes if pair[1] == number] for number in numbers)
    if len(axes) > len(numbers):
        yield from ([pair] for pair in axes)


def _size(search: _Search, axes: Sequence[Axis]) -> int:
    place, axis = axes[0]
    return int(pytree.tree_leaves(search.example)[place].shape[axis])
