"""Which sizes within a program go with which sizes of its inputs.

The program is run without data at several sizes of its inputs, each free axis changed by an amount
of its own. Sizes that are the same in all of these runs are one size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..values.nested import moved
from .agreement import drawn
from .probe import bare, run
from .program import Program
from .sizes import STEP, Axis, Varied, axes_by_size

RUNS, PRIME = 6, 7  # with other sizes, and a number that makes each axis change in its own way
Sizes = tuple[int, ...]  # of one axis, one a run


@dataclass(frozen=True)
class Axes:
    """Sizes of inputs and values in several runs of a program.

    The first is that of the example (two of a batch of one), in the second only the batch is
    another.

    Args:
        inputs: of every axis of the input tensors.
        values: by node, of every axis of its tensor; of a node that gives numbers, these.
    """

    inputs: Mapping[Axis, Sizes]
    values: Mapping[str, tuple[Sizes, ...]]

    def multiple(self, sizes: Sizes) -> tuple[Axis, int, int, int] | None:
        """(axis, times, more, over): these sizes are (an input's * times + more) // over.

        The size itself, a multiple of it (a batch of all heads), or what strides leave of it,
        rounded down or up.
        """
        for axis, known in self.inputs.items():
            if len(set(known)) < 2 or not all(sizes):
                continue
            most, part = max(zip(known, sizes, strict=True))  # rounding matters least there
            times, over = max(part // most, 1), max(round(most / part), 1)
            for more in (0, over - 1):
                found = tuple((size * times + more) // over for size in known)
                if found == sizes:
                    return axis, times, more, over
        return None


def axes(program: Program) -> Axes:
    """The sizes of everything in a program where those that are free are others."""
    known = {
        (place, axis): size
        for place, leaf in enumerate(pytree.tree_leaves(program.args))
        if isinstance(leaf, torch.Tensor)
        for axis, size in enumerate(leaf.shape)
    }
    batch = [axis for axis, size in known.items() if axis[1] == 0 and size == program.batch]
    if program.takes:
        batch = []
    elif program.batch == 1:
        known |= dict.fromkeys(batch, 2)  # what has size one broadcasts
    runs = _runs(program, known, batch)
    inputs = {axis: tuple(sizes[axis] for sizes, _ in runs) for axis in known}
    names = runs[0][1] if runs else {}
    values = {n: tuple(zip(*(found[n] for _, found in runs), strict=False)) for n in names}
    return Axes(inputs, values)


def _runs(
    program: Program, known: dict[Axis, int], batch: list[Axis]
) -> list[tuple[Varied, dict[str, list[int]]]]:
    """Sizes of inputs and of what each node gives: as they are, and changed where it runs."""
    module, device = bare(program.module), torch.device("meta")
    start = _run(module, program, device, known)
    if start is None:
        module, device = program.module, program.device
        start = _run(module, program, device, known)
    if start is None:
        return []
    larger = known | {axis: 3 * known[axis] for axis in batch}
    other = _run(module, program, device, larger)
    runs: list[tuple[Varied, dict[str, list[int]]]]
    runs = [(known, start), (known, start) if other is None else (larger, other)]
    free = [(batch, 1)] if batch else []
    for together in _together(program):
        for step in (1, STEP, known[together[0]]):
            varied = known | {axis: known[axis] + step for axis in together}
            if _run(module, program, device, varied) is not None:
                free.append((together, step))
                break
    lengths = free[1:] if batch else free
    apart = [(batch, 1)] * bool(batch)
    apart += [([axis], step) for together, step in lengths for axis in together]
    ways = [apart, free]
    for number in range(1, RUNS + 1):
        for way in list(ways):
            sizes = dict(known)
            for place, (group, step) in enumerate(way):
                change = step * (1 + (place + 1) * number % PRIME)
                sizes |= {axis: known[axis] + change for axis in group}
            found = _run(module, program, device, sizes)
            if found is not None:
                runs.append((sizes, found))
                break
            ways.remove(way)
    return runs


def _together(program: Program) -> list[list[Axis]]:
    """Axes beside the batch that may change, each with those that may have to change with it."""
    frozen = {(place, axis) for place, axis, _ in program.frozen}
    found, tried = [], set[Axis]()
    for varied in program.sizes:
        tried.update(varied)
        found += [[a for a in varied if varied[a] == new] for new in sorted({*varied.values()})]
    others = [axes for axes in axes_by_size(program.args).values() if not tried.issuperset(axes)]
    return found + [axes for axes in others if frozen.isdisjoint(axes)]


def _run(
    module: fx.GraphModule, program: Program, device: Any, sizes: Varied
) -> dict[str, list[int]] | None:
    """The sizes of what each node gives; None where it does not run."""
    args = moved(drawn(program.args, 0, 0, sizes), torch.device(device))
    try:
        found = run(module, args)
    except Exception:  # noqa: BLE001 - what a program raises at sizes that it does not take
        return None
    return {name: _sizes_of(value) for name, value in found.values.items()}


def _sizes_of(value: Any) -> list[int]:
    leaves = value.shape if isinstance(value, torch.Tensor) else pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, int)]
