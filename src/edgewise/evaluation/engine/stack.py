"""Many masks in one call of an operator: for accelerators, where starting one costs most.

Masks that differ early in the network still apply the same later layers, to other values. These are
stacked along the first dimension, and the layer runs once for all of them.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch

from .run import wait_for
from .steps import Program, Step

Inputs = tuple[Any, ...]


class Stack:
    """Executes programs without recovery, some of them side by side.

    Args:
        programs: in the order in which they are visited.
        size: how many run side by side; their activations are in memory together.
    """

    def __init__(self, programs: Sequence[Program], size: int) -> None:
        self.groups = [programs[i : i + size] for i in range(0, len(programs), size)]

    def piece(self, inputs: Inputs) -> Iterator[tuple[int, Any, float]]:
        """(program, its output or the exception it raised, seconds) for one piece of the data."""
        numbers = count()
        for group in self.groups:
            begin = time.perf_counter()
            with torch.inference_mode():
                outputs = _Together(group, inputs).run()
                wait_for(inputs)
            seconds = (time.perf_counter() - begin) / len(group)
            yield from ((next(numbers), value, seconds) for value in outputs)


def fastest(ways: Mapping[int, Callable[[], Iterable[Any]]]) -> int:
    """The way that takes the least time, each run to its end twice and timed the second time."""
    seconds = {}
    for name, way in ways.items():
        for _ in range(2):
            begin = time.perf_counter()
            list(way())
            seconds[name] = time.perf_counter() - begin
    return min(seconds, key=lambda name: seconds[name])


class _Together:
    """Some programs on one piece, from the beginning of the network to its end.

    A step waits for its inputs. Of those that wait no longer, the ones of the earliest operator run
    first, so that all masks have reached an operator before it runs.
    """

    def __init__(self, programs: Sequence[Program], inputs: Inputs) -> None:
        self.outputs = [program.output for program in programs]
        self.values: dict[Step, Any] = {}
        for program in programs:
            self.values |= dict(zip(program.inputs, inputs, strict=True))
        steps = dict.fromkeys(step for program in programs for step in program.steps)
        self.todo = [step for step in steps if step not in self.values]
        self.left = Counter(source for step in self.todo for source in step.inputs)
        self.left.update(self.outputs)
        self.readers: dict[Step, list[Step]] = defaultdict(list)
        self.waits: dict[Step, int] = {}
        for step in self.todo:
            sources = {source for source in step.inputs if source not in self.values}
            self.waits[step] = len(sources)
            for source in sources:
                self.readers[source].append(step)

    def run(self) -> list[Any]:
        """The output of every program, or the exception that it raised."""
        order = count()
        heap = [(step.place, next(order), step) for step in self.todo if not self.waits[step]]
        heapq.heapify(heap)
        while heap:
            place, found = heap[0][0], []
            while heap and heap[0][0] == place:
                found.append(heapq.heappop(heap)[2])
            for group in self._groups(found):
                self._call(group)
            for step in found:
                for reader in self.readers[step]:
                    self.waits[reader] -= 1
                    if not self.waits[reader]:
                        heapq.heappush(heap, (reader.place, next(order), reader))
        return [self.values[output] for output in self.outputs]

    def _groups(self, steps: Sequence[Step]) -> list[list[Step]]:
        """Steps that can run in one call."""
        groups: dict[Hashable, list[Step]] = defaultdict(list)
        for step in steps:
            groups[self._form(step) or step].append(step)
        return list(groups.values())

    def _form(self, step: Step) -> Hashable:
        """The same for steps whose inputs can be stacked; None if those of this one cannot."""
        values = [self.values[source] for source in step.inputs]
        if step.work is None or not all(isinstance(value, torch.Tensor) for value in values):
            return None
        sizes = {(value.ndim, value.shape[0]) for value in values if value.ndim}
        if len(sizes) != 1 or min(value.ndim for value in values) < step.dimensions:
            return None
        return step.work, tuple((value.shape, value.dtype, value.device) for value in values)

    def _call(self, steps: Sequence[Step]) -> None:
        if len(steps) > 1:
            try:
                columns = zip(*(self._inputs(step) for step in steps), strict=True)
                value = steps[0].call(*(torch.cat(column) for column in columns))
                self.values |= dict(zip(steps, value.chunk(len(steps)), strict=True))
            except Exception:  # noqa: BLE001 - too large together, perhaps: one by one
                self._call_each(steps)
        else:
            self._call_each(steps)
        for step in steps:
            self._forget(step)

    def _call_each(self, steps: Sequence[Step]) -> None:
        for step in steps:
            values = self._inputs(step)
            broken = next((value for value in values if isinstance(value, Exception)), None)
            try:
                self.values[step] = step.call(*values) if broken is None else broken
            except Exception as error:  # noqa: BLE001 - recorded with its masks
                self.values[step] = error

    def _inputs(self, step: Step) -> list[Any]:
        return [self.values[source] for source in step.inputs]

    def _forget(self, step: Step) -> None:
        """Drop what a step was the last to read."""
        for source in step.inputs:
            self.left[source] -= 1
            if not self.left[source]:
                del self.values[source]
