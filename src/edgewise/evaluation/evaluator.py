"""Measuring many masks: only live operators run, and masks share what they have in common.

A step of a program is identified by what it computes: its operator, its weights, and the steps it
reads. Masks that agree on everything upstream of an operator therefore share its value, whatever
the shape of the graph. Masks are visited in an order in which neighbours agree on as much of the
beginning of the network as possible, and a value is kept exactly as long as a later mask still
reads it.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ..errors import ObjectiveError, lacks_memory
from ..graph.graph import Graph, Mask
from ..values.nested import batch_size
from ..values.redact import redact
from .engine import EngineOptions
from .engine.around import Around
from .engine.cache import Cache
from .engine.compile import Compiler
from .engine.least_squares import ONCE
from .engine.order import visiting_order
from .engine.pieces import choose, join
from .engine.run import Autocast, Run
from .engine.steps import Program
from .measurement import Measurement, OfBatch
from .objective import Objective
from .records import Evaluation, Split, Status, whole_of

PERIOD = 60.0  # seconds that the masks of a chunk should take at most, together
FIRST = 2.0  # the same at the beginning, doubled with every chunk: it is soon seen to go on
SHARING = 4  # masks that share values even if they take longer


@dataclass(frozen=True)
class Outcome:
    """One mask measured: the record, the loss of every example, and the recovered tensors.

    `counts` says of metrics that are 0 or 1 for every example how often they are 1.
    """

    evaluation: Evaluation
    each: torch.Tensor | None = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Answer:
    """What one mask gave so far: pieces of a batch, batches measured, or what ended it."""

    pieces: list[Any] = field(default_factory=list)
    batches: list[OfBatch] = field(default_factory=list)
    error: Exception | None = None
    seconds: float = 0.0


class Engine:
    """Measures masks of one graph with one objective.

    Args:
        graph: the traced graph; its weights are used as they are, in eval mode.
        objective: what to measure.
        options: memory, layout and the like.
        once: whether masks are finished ones, so that fits may take longer.

    Raises:
        ObjectiveError: the data do not give the inputs that the traced model takes.
    """

    def __init__(
        self, graph: Graph, objective: Objective, options: EngineOptions | None = None,
        once: bool = False,
    ) -> None:  # fmt: skip
        self.graph, self.objective = graph, objective
        self.options, self.pace = options or EngineOptions(), 0.0  # seconds a mask and example
        self.period = FIRST
        graph.program.module.eval()
        precision = getattr(torch, objective.precision) if objective.precision else None
        self.autocast = Autocast(graph.program.device.type, precision)
        recovers = objective.recovery.kind != "none"
        self.around: Around | None = None
        calibration: Iterable[Any]
        if graph.program.whole is None:
            self._check_inputs()
            search = [inputs for inputs, _ in objective.splits["search"]]
            self.pieces = choose(graph, self.options, search)
            whole = [join(objective.recovery.batches)] if recovers else []
            calibration = (part for _, part in self.pieces.of(whole))
        else:
            self.around = Around(graph, objective, self.options.limit)
            self.pieces = choose(graph, self.options, ())
            calibration = self.around.calibration() if recovers else ()
        self.calibration = [self.pieces.laid_out(part) for part in calibration]
        linear = objective.recovery.kind == "linear"
        fits = sum(map(batch_size, self.calibration)) if linear else 0
        heads = self.around is None and objective.by_place
        times = ONCE if once else 1
        self.compiler = Compiler(graph, recovers, self.options.limit, fits, heads, times)
        self.caches: dict[tuple[Split, int], Cache] = {}  # of pieces

    def _check_inputs(self) -> None:
        """Raise ObjectiveError unless the data give the inputs that the traced model takes."""
        if self.objective.run is not None:
            raise ObjectiveError(
                "`run` calls the model as it likes, and the traced program stands for a call of it "
                "on the inputs. Trace a part of it: ew.trace(model, args, part=...)."
            )
        program, recovery = self.graph.program, self.objective.recovery
        names = program.names
        given: dict[str, list[Any]] = {
            name: [inputs for inputs, _ in batches]
            for name, batches in self.objective.splits.items()
        }
        if recovery.kind != "none":
            given["calibration"] = [join(recovery.batches)]  # it is one batch, however it is cut
        for name, batches in given.items():
            for inputs in batches:
                if len(inputs) != len(names):
                    raise ObjectiveError(
                        f"A batch gives {len(inputs)} inputs, the traced model takes "
                        f"{len(names)} ({', '.join(names)}). Trace it with the inputs that the "
                        "data give."
                    )
                whole = ", which count as one batch," if name == "calibration" else ""
                program.traced.check(inputs, f"The {name} data{whole} hold")

    def evaluate(
        self, masks: Sequence[Mask], split: Split = "search", *, tensors: bool = False
    ) -> Iterator[Outcome]:
        """Measure masks; failures are outcomes too.

        Yields:
            One outcome a mask, in an order of the engine's choice.
        """
        order = visiting_order(self.graph, masks)
        while order:
            seconds, done = 0.0, 0
            for outcome in self._evaluate_chunk(order[: self._chunk(split)], split, tensors):
                seconds, done = seconds + outcome.evaluation.seconds, done + 1
                yield outcome
            order = order[done:]
            self.pace = seconds / done / max(self.objective.samples(split), 1)
            self.period = min(2 * self.period, PERIOD)
            self.compiler.forget()

    def recovered(self, mask: Mask) -> dict[str, torch.Tensor]:
        """The recovered tensors of a mask, which is not measured."""
        program = self.compiler.program(mask)
        Run([program], self.calibration, self.compiler.memory).calibrate(0)
        self.compiler.forget()
        return program.recovered

    def _chunk(self, split: Split) -> int:
        """Masks that share values next: fewer where they take long, as results arrive together."""
        seconds = self.pace * self.objective.samples(split)
        fits = self.period / seconds if seconds else 0.0
        least = SHARING if not seconds or self.period >= PERIOD else 1
        return min(self.options.chunk, max(int(fits), least))

    def _evaluate_chunk(
        self, masks: Sequence[Mask], split: Split, tensors: bool
    ) -> Iterator[Outcome]:
        """Measure the first of these masks: as many as cut weights leave memory for."""
        lower = self.autocast if whole_of(split) == "search" else Autocast()
        programs, failed = self._programs(masks, split, lower.precision)
        yield from failed
        run = Run(programs, self.calibration, self.compiler.memory, lower)
        answers = [_Answer() for _ in programs]
        parts = self.pieces.of(inputs for inputs, _ in self.objective.batches(split))
        numbers = [number for number, _ in parts]
        for index, (number, part) in enumerate(parts):
            ends = number not in numbers[index + 1 : index + 2]
            for position, value, seconds in self._values(run, split, number, index, part):
                answer = answers[position]
                answer.pieces.append(value)
                answer.seconds += seconds
                if ends:
                    self._measure(answer, split, number)
                if index == len(parts) - 1:
                    answers[position] = _Answer()
                    yield self._outcome(programs[position], answer, split, tensors)

    def _measure(self, answer: _Answer, split: Split, number: int) -> None:
        """Measure a batch whose pieces are all there, so that its outputs need not be kept."""
        pieces, answer.pieces = answer.pieces, []
        broken = next((value for value in pieces if isinstance(value, Exception)), None)
        answer.error = answer.error or broken
        if answer.error is None:
            try:
                with torch.no_grad():
                    answer.batches.append(self.objective.of_batch(join(pieces), split, number))
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                answer.error = error

    def _values(
        self, run: Run, split: Split, number: int, index: int, inputs: Any
    ) -> Iterator[tuple[int, Any, float]]:
        """(program, what it gives or raises, seconds) for a piece of a batch."""
        if self.around is None:
            lasts = not self.compiler.recover
            new = Cache(self.compiler.memory, lasts)
            cache = self.caches.setdefault((split, index), new) if lasts else new
            return run.piece(self.pieces.laid_out(inputs), 0, cache)
        return self.around.values(run, split, number, self.pieces.laid_out)

    def _programs(
        self, masks: Sequence[Mask], split: Split, precision: torch.dtype | None
    ) -> tuple[list[Program], list[Outcome]]:
        programs, failed = list[Program](), list[Outcome]()
        with _young_garbage():
            for mask in masks:
                if (programs or failed) and self.compiler.cut_bytes > self.options.limit:
                    break
                try:
                    program = self.compiler.program(mask, precision)
                    if program.guard is not None and self.around is None:
                        for _, part in self.pieces.of(i for i, _ in self.objective.batches(split)):
                            program.guard.check(part, "The network under this mask got")
                    programs.append(program)
                except Exception as error:  # noqa: BLE001 - one bad mask must not end the study
                    failed.append(self._failure(mask, split, error, 0.0))
        return programs, failed

    def _outcome(self, program: Program, answer: _Answer, split: Split, tensors: bool) -> Outcome:
        """What a mask gave on all batches as a record."""
        mask, seconds = program.mask, answer.seconds
        try:
            if answer.error is not None:
                raise answer.error
            with torch.no_grad():
                measured = self.objective.together(answer.batches, split)
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            return self._failure(mask, split, error, seconds)
        record = self._record(mask, split, measured, seconds)
        recovered = program.recovered if tensors else {}
        return Outcome(record, measured.each, recovered, measured.counts)

    def _record(
        self, mask: Mask, split: Split, measured: Measurement, seconds: float
    ) -> Evaluation:
        finite = measured.loss - measured.loss == 0
        return Evaluation(
            mask=str(mask),
            split=split,
            loss=measured.loss if finite else None,
            metrics=dict(measured.metrics),
            samples=self.objective.samples(split),
            seconds=seconds,
            status="ok" if finite else "nan",
            error=None if finite else f"The loss is {measured.loss}.",
        )

    def _failure(self, mask: Mask, split: Split, error: Exception, seconds: float) -> Outcome:
        status: Status = "out of memory" if lacks_memory(error) else "failed"
        text = (
            str(error) if isinstance(error, ObjectiveError) else f"{type(error).__name__}: {error}"
        )
        record = Evaluation(str(mask), split, None, {}, 0, seconds, status, redact(text)[:2000])
        return Outcome(record)


@contextmanager
def _young_garbage() -> Iterator[None]:
    """Garbage collection within looks only at what was made within.

    The graphs that masks are lowered through refer to themselves, and full collections, which look
    at every object of the process, would take a third of the time.
    """
    if gc.get_freeze_count():  # somebody else counts on it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Executor(Protocol):
    """Measures masks of one graph with one objective."""

    def evaluate(
        self, masks: Sequence[Mask], split: Split = "search", *, tensors: bool = False
    ) -> Iterator[Outcome]:
        """One outcome a mask, in any order, as they arrive; failures are outcomes too."""
        ...

    def close(self) -> None:
        """Free what the executor holds; it measures nothing afterwards."""
        ...


MakeExecutor = Callable[[Graph, Objective, EngineOptions], Executor]


class Serial(Engine):
    """Measures in this process, one mask after another."""

    def close(self) -> None:
        """Nothing is held beyond this object."""
