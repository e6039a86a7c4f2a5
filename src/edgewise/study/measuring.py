"""Asks become evaluations: from the storage, from other processes, or measured here and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgewiseError, PlanError
from ..evaluation.evaluator import Executor, Outcome
from ..evaluation.objective import Objective
from ..evaluation.records import Evaluation, Split
from ..graph.graph import Mask
from ..search import Ask, Questions, answered
from ..search.stopping import paired_error
from .progress import Told, silent
from .storage.storage import RETRIED, Storage

CLAIMED = 32  # masks that a process takes at a time where several work on one study


class Measuring:
    """Answers what is asked of a study, and measures nothing twice.

    Args:
        objective: what an evaluation measures.
        storage: keeps every evaluation as soon as it is finished.
        executor: measures masks.
        before: called once, before the first mask.
    """

    def __init__(
        self, objective: Objective, storage: Storage, executor: Executor,
        before: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.objective, self.storage, self.executor = objective, storage, executor
        self._before = [before]
        self._tried: set[tuple[str, str]] = set()
        self._ahead: dict[tuple[str, str], Outcome] = {}  # measured before they were asked for

    def known(self, split: Split) -> dict[str, Evaluation]:
        """The evaluations on the whole of a split, and the failures, by mask."""
        size = self.objective.samples(split)
        records = (e for e in in_order(self.storage.evaluations()) if e.split == split)
        return {e.mask: e for e in records if e.samples in (0, size)}

    def answer(
        self, ask: Ask, split: Split, known: dict[str, Evaluation], told: Told
    ) -> list[Evaluation]:
        """The evaluations that were asked for: known ones from the storage, the rest measured."""
        again = {str(m) for m in ask.masks if self._retry(known.get(str(m)))}
        for bits in again:
            del known[bits]
        fresh = [m for m in ask.masks if str(m) not in known]
        for mask in ask.masks:
            if str(mask) in known:
                told(known[str(mask)], kept=True)
        with self.storage.sharing():
            for record in self._finished(ask, fresh, split, again):
                known[record.mask] = record
                told(record)
        return [known[str(m)] for m in ask.masks]

    def _finished(
        self, ask: Ask, masks: Iterable[Mask], split: Split, again: set[str]
    ) -> Iterator[Evaluation]:
        """Evaluations as they are finished, here or by another process, and kept."""
        waiting = {str(m): m for m in sorted(masks, key=lambda m: m.bits)}
        samples = self.objective.samples(split)
        while waiting:
            mine, found = self.storage.share(list(waiting), split, samples, again, CLAIMED)
            for record in found:
                del waiting[record.mask]
                yield record
            for outcome in self._measured([waiting[bits] for bits in mine], split):
                mean, std = ask.expected.get(waiting.pop(outcome.evaluation.mask), (None, None))
                record = replace(
                    outcome.evaluation, origin=ask.origin, predicted=mean, deviation=std
                )
                self._tried.add((record.mask, record.split))
                self.storage.add(record, _each(outcome))
                yield record

    def preview(self, mask: Mask) -> Evaluation:
        """A mask on the search split: what is known of it, else measured and kept in memory only.

        A search that asks for it later stores it, with the reason why it asked.
        """
        key: tuple[str, Split] = (str(mask), "search")
        if known := self.known("search").get(key[0]):
            return known
        if key not in self._ahead:
            self._ahead[key] = next(iter(self._measured([mask], "search")))
        return self._ahead[key].evaluation

    def _measured(self, masks: list[Mask], split: Split) -> Iterator[Outcome]:
        while self._before:
            self._before.pop()()
        ready = [mask for mask in masks if (str(mask), split) in self._ahead]
        yield from (self._ahead.pop((str(mask), split)) for mask in ready)
        if rest := [mask for mask in masks if mask not in ready]:
            yield from self.executor.evaluate(rest, split)

    def _retry(self, record: Evaluation | None) -> bool:
        """Whether a failure is tried again: once a process, since its cause may be mended."""
        if record is None or record.status not in RETRIED:
            return False
        again = (record.mask, record.split)
        if again in self._tried:
            return False
        self._tried.add(again)
        return True

    def losses(self, mask: Mask, split: Split) -> NDArray[np.float32]:
        """The stored loss of every example [n] of a split.

        Raises:
            EdgewiseError: they are not stored.
        """
        losses = self.storage.losses(str(mask), split)
        if losses is None:
            raise EdgewiseError(
                f"No losses of single examples are stored for mask {mask} on the {split} split: it "
                "is not measured there, or was by an edgewise that kept the mean only, or the "
                'loss gives no value an example (reduction="none").'
            )
        return losses

    def noise(self, masks: Sequence[Mask]) -> float:
        """The standard error of the difference between the first of some masks and another."""
        return paired_error([self.losses(mask, "search") for mask in masks])

    def last_run(self) -> Mapping[str, Any]:
        """The settings of the last run of the study.

        Raises:
            PlanError: there is none.
        """
        runs = self.storage.runs()
        if not runs:
            raise PlanError("Nothing has been evaluated yet: call study.run(...) first.")
        return runs[-1].settings

    def ranked(self, steps: Questions, split: Split, told: Told) -> Sequence[Mask]:
        """Those of the finalists asked for that could be measured, the lowest loss first.

        Raises:
            PlanError: none could.
        """
        known, losses = self.known(split), dict[Mask, float]()

        def answer(ask: Ask) -> list[Evaluation]:
            answers = self.answer(ask, split, known, told)
            pairs = zip(ask.masks, answers, strict=True)
            losses.update((m, e.loss) for m, e in pairs if e.loss is not None)
            return answers

        found = answered(steps, answer)
        if not losses:
            raise PlanError(f"Every finalist failed on the {split} split: {found[0].error}")
        return sorted(losses, key=lambda mask: losses[mask])

    def final(
        self, winner: Mask, empty: Mask, split: Split, told: Told
    ) -> tuple[Outcome, Evaluation]:
        """The winner on a split, with tensors and per-example losses, and the unpruned network."""
        ask = Ask("reporting", "unpruned", (empty,))
        unpruned = self.answer(ask, split, self.known(split), silent)[0]
        outcome = next(iter(self.executor.evaluate([winner], split, tensors=True)))
        for which, record in (("unpruned network", unpruned), ("chosen mask", outcome.evaluation)):
            if not record.ok:
                raise PlanError(f"The {which} failed on the {split} split: {record.error}")
        self.storage.add(replace(outcome.evaluation, origin="finalist"), _each(outcome))
        told(outcome.evaluation)
        return outcome, unpruned


def _each(outcome: Outcome) -> NDArray[Any] | None:
    """The loss of every example [n], if known."""
    return None if outcome.each is None else outcome.each.numpy()


def in_order(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The same whatever the order in which workers finished: fits depend on it in the last bits.

    Of one mask a result comes after a failure, which has seen no samples.
    """
    return sorted(evaluations, key=lambda e: (e.split, e.mask, e.samples))
