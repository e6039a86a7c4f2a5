"""Ray actors that measure masks, and the executor that keeps them busy and outlives them."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import EdgewiseWarning, ExecutorError
from ...graph.graph import Mask
from ..engine import EngineOptions
from ..evaluator import Engine, Outcome
from ..objective import Objective
from ..records import Evaluation, Split
from .dispatch import DEATHS, Chunk, Dispatch, Patience
from .shipping import unpack

log = logging.getLogger("edgewise")
WARN_AFTER = 60  # seconds without any worker
TICK = 0.5  # seconds between looks at the cluster
FALSE_STARTS = 5  # workers in a row that die before they are ready
KILL_AFTER = 3  # times the patience after which a silent worker is killed


class Worker:
    """An actor: it gets graph and objective once, then chunks of masks."""

    def prepare(self, cargo: bytes, engine: EngineOptions, threads: int) -> int:
        """Unpack the job; returns the process id."""
        from ray import cloudpickle

        torch.set_num_threads(threads)
        graph, objective = unpack(cargo, cloudpickle)
        self.engine = Engine(graph, objective, engine)
        return os.getpid()

    def measure(self, masks: Chunk, split: Split, tensors: bool) -> Iterator[Outcome]:
        """Outcomes one by one, as the engine finishes them."""
        # no `yield from`: it would pass on what Ray sends into generators
        for outcome in self.engine.evaluate(masks, split, tensors=tensors):  # noqa: UP028
            yield outcome


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it: preparing, idle, or busy with a chunk."""

    actor: Any
    call: Any  # what it will answer next; None = idle
    pid: int | None = None
    chunk: Chunk = ()
    began: float = 0.0
    heard: float = 0.0
    answers: int = 0
    doubted: bool = False


@dataclass
class Workers:
    """The executor on Ray; see `executor.Ray`, which makes it.

    Args:
        ray: the connected package.
        cargo: a reference to the packed job.
        objective: what is measured.
        engine: options of each worker's engine.
        order: masks as an engine visits them.
        threads: torch threads, and reserved CPUs, of each worker.
        gpus: reserved for each worker.
        count: workers wanted; None = as many as the cluster has room for, at any time.
        patience: seconds of silence that are never too long.
        leave: called at the end.
    """

    ray: Any
    cargo: Any
    objective: Objective
    engine: EngineOptions
    order: Callable[[Sequence[Mask]], list[Mask]]
    threads: int
    gpus: float
    count: int | None
    patience: float
    leave: Callable[[], None]
    hands: list[_Hand] = field(default_factory=list)
    refused: list[Exception] = field(default_factory=list)
    false_starts: int = 0

    def __post_init__(self) -> None:
        self._silence = Patience(self.patience)
        self._looked = -TICK
        self._waiting_since: float | None = time.monotonic()
        self._grow()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready, each on its own machine."""
        return [hand.pid for hand in self.hands if hand.pid is not None]

    def evaluate(
        self, masks: Sequence[Mask], split: Split = "search", *, tensors: bool = False
    ) -> Iterator[Outcome]:
        """One outcome a distinct mask, as they arrive.

        A worker that dies or falls silent costs only the time of its chunk. A mask over which
        several workers died is a failed outcome.

        Raises:
            ExecutorError: no worker can be used, or they have been closed.
        """
        if self.cargo is None:
            raise ExecutorError("The workers have been closed; open the study again.")
        dispatch = Dispatch(self.order(masks), self._wanted())
        try:
            while dispatch.pending:
                self._grow()
                self._hand_out(dispatch, split, tensors)
                yield from self._listen(dispatch, split)
                yield from self._doubt(dispatch, split)
        finally:
            for hand in [h for h in self.hands if h.chunk]:  # what they do is of no use any more
                self._drop(hand)

    def close(self) -> None:
        """End all workers, and Ray if it was started for them."""
        for hand in list(self.hands):
            self._drop(hand)
        self.cargo = None
        self.leave()

    def _wanted(self) -> int:
        if self.count is not None:
            return self.count
        there = self.ray.cluster_resources()
        room = [there.get(kind, 0) / each for kind, each in self._takes.items() if each]
        return max(int(min(room) + 1e-9), 1)  # ten times .1 make a whole

    @property
    def _takes(self) -> dict[str, float]:
        """What one worker reserves."""
        return {"CPU": self.threads, "GPU": self.gpus}

    def _grow(self) -> None:
        """As many workers as there is room for: machines join, workers die."""
        now = time.monotonic()
        if now - self._looked < TICK:
            return
        self._looked = now
        made_of = self.ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_restarts=0)
        actor = made_of(Worker)
        for _ in range(self._wanted() - len(self.refused) - len(self.hands)):
            made = actor.remote()
            ready = made.prepare.remote(self.cargo, self.engine, self.threads)
            self.hands.append(_Hand(made, ready))
        if self.refused and not self.hands:
            raise self.refused[0]
        self._warn_of_waiting(now)

    def _warn_of_waiting(self, now: float) -> None:
        if self.pids:
            self._waiting_since = None
        elif self._waiting_since is not None and now - self._waiting_since > WARN_AFTER:
            self._waiting_since = None
            free = self.ray.available_resources()
            lacks = ", ".join(f"{each:g} {kind} of {free.get(kind, 0):g} that are free"
                              for kind, each in self._takes.items() if each)  # fmt: skip
            warnings.warn(
                f"No worker is ready after {WARN_AFTER} seconds. One takes {lacks}. Others may "
                "hold them, or it starts slowly.",
                EdgewiseWarning, stacklevel=2,
            )  # fmt: skip

    def _hand_out(self, dispatch: Dispatch, split: Split, tensors: bool) -> None:
        for hand in self.hands:
            chunk = dispatch.take() if hand.call is None else ()
            if chunk:
                method = hand.actor.measure.options(num_returns="streaming")
                hand.call, hand.chunk = method.remote(chunk, split, tensors), chunk
                hand.began = hand.heard = time.monotonic()
                hand.answers, hand.doubted = 0, False

    def _listen(self, dispatch: Dispatch, split: Split) -> Iterator[Outcome]:
        """The next answers, if any come before a tick is over."""
        calls = {hand.call: hand for hand in self.hands if hand.call is not None}
        ready, _ = self.ray.wait(list(calls), num_returns=1, timeout=TICK)
        for hand in (calls[call] for call in ready):
            try:
                if not hand.chunk:
                    self._welcome(hand)
                    continue
                outcome = self.ray.get(next(hand.call))
                hand.heard, hand.answers = time.monotonic(), hand.answers + 1
                if hand.answers == len(hand.chunk):
                    self._silence.learn(hand.heard - hand.began, self._work(hand.chunk, split))
                    hand.call, hand.chunk = None, ()
                if dispatch.answer(outcome.evaluation.mask):
                    yield outcome
            except StopIteration:
                yield from self._bury(hand, dispatch, split, "it gave no answer")
            except _deaths(self.ray.exceptions) as error:
                yield from self._bury(hand, dispatch, split, _first_sentence(error))

    def _welcome(self, hand: _Hand) -> None:
        """A worker is ready, or cannot be used."""
        try:
            hand.pid, hand.call = self.ray.get(hand.call), None
            self.false_starts = 0
        except _deaths(self.ray.exceptions):
            raise
        except Exception as error:  # noqa: BLE001 - whatever that machine lacks
            self.refused.append(_useless(getattr(error, "cause", None) or error))
            warnings.warn(str(self.refused[-1]), EdgewiseWarning, stacklevel=2)
            self._drop(hand)

    def _bury(
        self, hand: _Hand, dispatch: Dispatch, split: Split, reason: str
    ) -> Iterator[Outcome]:
        """A worker is dead or as good as dead: its chunk goes out again, or is given up."""
        log.info("A worker is lost: %s", reason)
        chunk = hand.chunk
        self._drop(hand)
        if not chunk:
            self.false_starts += 1
            if self.false_starts >= FALSE_STARTS:
                raise ExecutorError(f"Workers die before they are ready: {reason}")
        for mask in dispatch.bury(chunk):
            yield Outcome(Evaluation(
                str(mask), split, None, {}, 0, time.monotonic() - hand.began, "failed",
                f"{DEATHS} workers died while they measured this mask; the last: {reason}",
            ))  # fmt: skip

    def _doubt(self, dispatch: Dispatch, split: Split) -> Iterator[Outcome]:
        """What a silent worker has goes to others too; in the end it is killed."""
        now = time.monotonic()
        for hand in [h for h in self.hands if h.chunk]:
            limit = self._silence.seconds(self._work(hand.chunk, split))
            silent = now - hand.heard
            if limit is None or silent <= limit:
                continue
            if silent > KILL_AFTER * limit:
                reason = f"it was silent for {silent:.0f} seconds"
                yield from self._bury(hand, dispatch, split, reason)
            elif not hand.doubted:
                hand.doubted = True
                dispatch.issue_again(hand.chunk)

    def _work(self, chunk: Chunk, split: Split) -> int:
        return len(chunk) * self.objective.samples(split)

    def _drop(self, hand: _Hand) -> None:
        self.hands.remove(hand)
        self.ray.kill(hand.actor)


def _deaths(exceptions: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a process or a machine is gone."""
    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


def _useless(error: Exception) -> ExecutorError:
    text = str(error) if isinstance(error, ExecutorError) else f"{type(error).__name__}: {error}"
    return ExecutorError(f"A worker is of no use: {text} (Every machine needs the same packages.)")


def _first_sentence(error: Exception) -> str:
    """Ray's reason without the list of everything that may lie behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((line for line in lines if "exit detail" in line), lines[0] if lines else "")
    return detail.partition(" There are some potential root causes")[0]
