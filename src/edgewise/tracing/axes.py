"""Which sizes within a program go with which sizes of its inputs.

The program is run without data at several sizes of its inputs, each free axis changed by an amount
of its own. Sizes that are the same in all of these runs are one size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..values.nested import moved
from .agreement import drawn
from .probe import run
from .program import Program
from .sizes import Axis, Varied

RUNS, PRIME = 6, 7  # with other sizes, and a number that makes each axis change in its own way
Sizes = tuple[int, ...]  # of one axis, one a run


@dataclass(frozen=True)
class Axes:
    """Sizes of inputs and values in several runs of a program.

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
            times, over = max(sizes[0] // known[0], 1), max(round(known[0] / sizes[0]), 1)
            for more in (0, over - 1):
                found = tuple((size * times + more) // over for size in known)
                if found == sizes:
                    return axis, times, more, over
        return None


def axes(program: Program) -> Axes:
    """The sizes of everything in a program where those that are free are others."""
    leaves = enumerate(pytree.tree_leaves(program.args))
    known = {
        (place, axis): size
        for place, leaf in leaves
        if isinstance(leaf, torch.Tensor)
        for axis, size in enumerate(leaf.shape)
    }
    batch = [axis for axis, size in known.items() if axis[1] == 0 and size == program.batch]
    free = [] if program.fixed_batch else [(batch, 1)]
    for varied in program.sizes:
        for new in sorted({*varied.values()}):
            together = [axis for axis in varied if varied[axis] == new]
            free.append((together, abs(new - known[together[0]])))
    if program.batch == 1 and not program.fixed_batch:
        known |= dict.fromkeys(batch, 2)  # what has size one broadcasts
    runs = _runs(program, known, free)
    inputs = {axis: tuple(sizes[axis] for sizes, _ in runs) for axis in known}
    names = runs[0][1] if runs else {}
    values = {n: tuple(zip(*(found[n] for _, found in runs), strict=False)) for n in names}
    return Axes(inputs, values)


def _runs(
    program: Program, known: dict[Axis, int], free: list[tuple[list[Axis], int]]
) -> list[tuple[Varied, dict[str, list[int]]]]:
    """Sizes of inputs and of what each node gives: as they are, and changed where it runs."""
    start = _run(_without_data(program.module), program, "meta", known)
    module: Any = program.module if start is None else _without_data(program.module)
    device = program.device if start is None else "meta"
    runs = [(known, start if start is not None else _run(module, program, device, known))]
    for number in range(1, RUNS + 1):
        for wide in (False, True):
            sizes = dict(known)
            for place, (together, step) in enumerate(free):
                change = 1 + (place + 1) * number % PRIME
                sizes |= {axis: sizes[axis] + change * (step if wide else 1) for axis in together}
            found = _run(module, program, device, sizes)
            if found is not None:
                runs.append((sizes, found))
                break
    return [(sizes, found) for sizes, found in runs if found is not None]


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


def _without_data(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose tensors have shapes only."""
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(t): t.detach().to("meta") for t in tensors})
