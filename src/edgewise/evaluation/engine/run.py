"""Running the programs of some masks on one piece of data after another."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ...values.nested import device_of
from .cache import Cache
from .options import Memory
from .steps import Program, Step, missing

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Autocast:
    """In which precision matrices are multiplied; None: in that of the model."""

    device: str = "cpu"
    precision: torch.dtype | None = None

    def on(self) -> AbstractContextManager[Any]:
        """A context of that precision."""
        lower = self.precision is not None
        return torch.autocast(self.device, self.precision) if lower else nullcontext()


class Run:
    """Executes programs, sharing values between them.

    Args:
        programs: in the order in which they are visited.
        calibration: all the calibration data, in pieces.
        memory: what values kept for later programs may take.
        autocast: in which precision the data run; calibration runs in that of the model.
    """

    def __init__(
        self, programs: Sequence[Program], calibration: Sequence[Inputs], memory: Memory,
        autocast: Autocast | None = None,
    ) -> None:  # fmt: skip
        self.programs, self.calibration = programs, calibration
        self.memory, self.autocast = memory, autocast or Autocast()
        self.reads = _reads([([*p.outputs], p.steps) for p in programs])
        self.learns = _reads([(p.learners, p.calibration) for p in programs])
        self.calibrated = Cache(self.memory)
        self.calibrated.expect(_count(self.learns))
        self.failed: dict[int, Exception] = {}

    def piece(
        self, inputs: Inputs, part: int = 0, cache: Cache | None = None
    ) -> Iterator[tuple[int, Any, float]]:
        """(program, its output or the exception it raised, seconds) for one piece of the data.

        Args:
            inputs: of the network, or of one part of it.
            part: which.
            cache: what other programs left of the same piece.
        """
        evaluated = cache or Cache(self.memory)
        evaluated.expect(_count(self.reads))
        for position in range(len(self.programs)):
            begin = time.perf_counter()
            value = self.failed.get(position) or self._value(position, inputs, part, evaluated)
            wait_for(inputs)
            evaluated.release(self.reads[position])
            self.calibrated.release(self.learns[position])
            yield position, value, time.perf_counter() - begin
        self.calibrated.clear()

    def again(self, position: int, inputs: Inputs, part: int) -> Any:
        """What a program gives for other inputs of a part; nothing is shared."""
        program, cache = self.programs[position], Cache(self.memory)
        return self._of(program, inputs, part, cache, set())

    def _of(
        self, program: Program, inputs: Inputs, part: int, cache: Cache, reads: set[Step]
    ) -> Any:
        given = dict(zip(program.inputs[program.parts[part]], inputs, strict=True))
        with torch.inference_mode(), self.autocast.on():
            return _execute(program.steps, [program.outputs[part]], [given], cache, reads)[0]

    def _value(self, position: int, inputs: Inputs, part: int, cache: Cache) -> Any:
        program = self.programs[position]
        try:
            self.calibrate(position)
            value = self._of(program, inputs, part, cache, self.reads[position])
        except Exception as error:  # noqa: BLE001 - recorded with its mask
            value = self.failed[position] = error
        return value

    def calibrate(self, position: int) -> None:
        """Run the calibration data up to the last step of a program that has not learned."""
        program = self.programs[position]
        goals = [s for s in program.learners if s.learner is not None and not s.learner.known]
        if goals:
            given = [dict(zip(program.inputs, i, strict=True)) for i in self.calibration]
            with torch.inference_mode():
                _execute(program.calibration, goals, given, self.calibrated, self.learns[position])


def wait_for(inputs: Inputs) -> None:
    """Until the accelerator, if the inputs are on one, has done what it was asked for."""
    home = device_of(inputs)
    if home is not None and home.type not in ("cpu", "meta"):
        torch.get_device_module(home).synchronize(home)


def _reads(plans: Sequence[tuple[list[Step], list[Step]]]) -> list[set[Step]]:
    """For every (goals, steps) what it reads, if what earlier ones computed is kept."""
    seen: set[Step] = set()
    reads = []
    for goals, steps in plans:
        goals = [goal for goal in goals if goal.learner is None or goal not in seen]
        run = missing(steps, goals, seen)
        reads.append({source for step in run for source in step.inputs if not source.free})
        seen.update(step for step in run if not step.free)
    return reads


def _count(reads: Sequence[set[Step]]) -> Counter[Step]:
    return Counter(step for steps in reads for step in steps)


def _execute(
    order: Sequence[Step], goals: Sequence[Step], pieces: Sequence[Mapping[Step, Any]],
    cache: Cache, reads: set[Step],
) -> list[Any]:  # fmt: skip
    """Run what is missing for the goals; gives the value of the last one for every piece.

    Pieces run one by one from one step that learns to the next, which learns from all of them.
    The value of a goal that learns is not computed, unless something reads it.
    """
    run = missing(order, goals, cache.values)
    uses = Counter(source for step in run for source in step.inputs)
    uses.update(goal for goal in goals if goal.learner is None)
    kept = {s for s in run if not s.free and cache.readers[s] > (s in reads)}
    workers = [
        _Worker(
            {**inputs}
            | {s: cache.values[s][i] for s in uses if s in cache.values},
            uses, kept,
        )
        for i, inputs in enumerate(pieces)
    ]  # fmt: skip
    for stage, next_one in _stages(run, kept):
        values = _run_stage(workers, stage, next_one)
        if next_one is not None and next_one.learner is not None:
            next_one.learner.learn(values)
        else:
            deque(values, maxlen=0)
        if stage and stage[-1] in kept:
            cache.keep(stage[-1], [worker.give(stage[-1]) for worker in workers])
    return [worker.values.get(goals[-1]) for worker in workers]


def _run_stage(
    workers: Iterable[_Worker], stage: Sequence[Step], reader: Step | None
) -> Iterator[list[Any]]:
    """Run a stage on one piece after another; gives what the reader reads of each."""
    for worker in workers:
        worker.run(stage)
        yield [worker.values[source] for source in reader.inputs] if reader is not None else []


def _stages(run: Sequence[Step], kept: Container[Step]) -> Iterator[tuple[list[Step], Step | None]]:
    """The steps up to each value to keep, or up to each step that must learn first, and it."""
    stage: list[Step] = []
    for step in run:
        if step.learner is not None and not step.learner.known:
            yield stage, step
            stage = []
        stage.append(step)
        if step in kept:
            yield stage, None
            stage = []
    yield stage, None


class _Worker:
    """Runs steps on one piece of the data, forgetting each value after its last reader."""

    def __init__(self, values: dict[Step, Any], uses: Counter[Step], kept: set[Step]) -> None:
        self.values, self.uses, self.kept = values, uses, kept
        self.given = frozenset(values)
        self.left, self.pending = uses.copy(), set(kept)

    def run(self, steps: Sequence[Step]) -> None:
        """Compute the values of steps that something reads."""
        for step in steps:
            if step in self.given:
                continue
            if self.left[step] or step in self.pending:
                self.values[step] = self._call(step)
            for source in step.inputs:
                self.left[source] -= 1
                self._forget(source)

    def give(self, step: Step) -> Any:
        """A value to keep elsewhere."""
        value = self.values[step]
        self.pending.discard(step)
        self._forget(step)
        return value

    def _forget(self, step: Step) -> None:
        if not self.left[step] and step not in self.pending:
            self.values.pop(step, None)

    def _call(self, step: Step) -> Any:
        values = [self.values[source] for source in step.inputs]
        if step.write is not None:
            place = next((i for i, s in enumerate(step.inputs) if self._last(s)), None)
            if place is not None:
                values.insert(0, values.pop(place))
                return step.write(*values)
        return step.call(*values)

    def _last(self, step: Step) -> bool:
        """Whether a value is new memory that nothing else reads, not even through a view."""
        lasting = step in self.kept or step in self.given
        return step.fresh and self.uses[step] == 1 and not lasting
