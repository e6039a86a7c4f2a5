"""Asks become evaluations: from the storage, from other processes, or measured here and kept."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import EdgewiseError, PlanError
from ..evaluation.evaluator import Executor, Outcome
from ..evaluation.objective import Objective
from ..evaluation.records import Evaluation, Split, whole_of
from ..evaluation.sizes import sized
from ..graph.cost import cost
from ..graph.graph import Mask
from ..search import Ask, Questions, Space, answered
from ..search.known import ALIKE, Known
from ..search.stopping import paired_error
from .picks import picks
from .progress import Teller, Told, silent
from .storage.storage import RETRIED, Storage

WORTH = 1e10  # multiply-accumulates of an evaluation from which on some see a part of the examples
HALF = 2.0**-8  # relative difference of losses that bfloat16 explains
log = logging.getLogger("edgewise")
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
        self._sizes: dict[tuple[str, Split], dict[Split, Evaluation]] = {}  # by mask, whole split

    def known(self, split: Split) -> dict[str, Evaluation]:
        """The evaluations on the whole of a split, and the failures, by mask."""
        size, records = self.objective.samples(split), in_order(self.storage.evaluations())
        for record in records:
            self._note(record)
        return {e.mask: e for e in records if e.split == split and e.samples in (0, size)}

    def _note(self, record: Evaluation) -> None:
        if record.ok:
            sizes = self._sizes.setdefault((record.mask, whole_of(record.split)), {})
            sizes[record.split] = record

    def learnt(self, space: Space) -> list[Evaluation]:
        """What is known of masks on the search split, also of those measured on a part of it."""
        return list(Known(space, self.searched()).estimates.values())

    def searched(self, first: int | None = None) -> list[Evaluation]:
        """The first evaluations of the study that are of the search split, with their losses.

        Losses are left out where all examples were seen by all, which then need no comparing.
        """
        records = in_order(self.storage.evaluations()[:first])
        search = [e for e in records if whole_of(e.split) == "search"]
        whole = all(e.split == "search" for e in search)
        return search if whole else list(map(self.with_losses, search))

    def follow(
        self, steps: Questions, told: Told, unpruned: Callable[[Evaluation], None]
    ) -> list[Evaluation]:
        """Measure what a search asks for on the search split, until it ends; all of it, in order.

        Args:
            steps: yields Asks, and is sent their evaluations.
            told: called with every evaluation.
            unpruned: called with that of the unpruned network.
        """
        known, lots = {"search": self.known("search")}, self.objective.lots("search")

        def answer(ask: Ask) -> list[Evaluation]:
            if isinstance(told, Teller):
                told.phase = told.title or ask.phase
            split = sized("search", ask.lots or range(lots.count), lots.count)
            if split not in known:
                known[split] = self.known(split)
            answers = list(map(self.with_losses, self.answer(ask, split, known[split], told)))
            if ask.origin == "unpruned" and not ask.lots:
                unpruned(answers[0])
                if answers[0].ok and answers[0].each is None and lots.samples > 1:
                    log.info(
                        "The loss gives one number a batch, so that every mask is measured on all "
                        'examples. With one value an example (reduction="none") a search sees up '
                        "to four times as many masks for the same examples."
                    )
            return answers

        return answered(steps, answer)

    def answer(
        self, ask: Ask, split: Split, known: dict[str, Evaluation], told: Told
    ) -> list[Evaluation]:
        """The evaluations that were asked for: known ones from the storage, the rest measured."""
        again = {str(m) for m in ask.masks if self._retry(known.get(str(m)))}
        for bits in again:
            del known[bits]
        fresh = [m for m in ask.masks if str(m) not in known]
        for mask in fresh:
            pieces, rest = self._pieces(str(mask), split)
            if not rest and pieces[0].split != split:
                whole = split == whole_of(split)  # parts of what is stored are not stored again
                known[str(mask)] = self._kept(ask, mask, self._together(pieces, split), whole)
        fresh = [m for m in fresh if str(m) not in known]
        for mask in ask.masks:
            if str(mask) in known:
                told(known[str(mask)], kept=True)
        with self.storage.claims.beating():
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
            for outcome in self._completed([waiting[bits] for bits in mine], split):
                yield self._kept(ask, waiting.pop(outcome.evaluation.mask), outcome)

    def _kept(self, ask: Ask, mask: Mask, outcome: Outcome, store: bool = True) -> Evaluation:
        """The record of what was asked for."""
        mean, std = ask.expected.get(mask, (None, None))
        record = replace(outcome.evaluation, origin=ask.origin, predicted=mean, deviation=std)
        self._tried.add((record.mask, record.split))
        if store:
            self.storage.add(record, _each(outcome))
            self._note(record)
        return record

    def _completed(self, masks: list[Mask], split: Split) -> Iterator[Outcome]:
        """Masks on a split or a size, of which only those examples run that are not known yet."""
        known = {str(mask): self._pieces(str(mask), split) for mask in masks}
        for rest in sorted({rest for _, rest in known.values()}):
            group = [mask for mask in masks if known[str(mask)][1] == rest]
            for outcome in self._measured(group, rest):
                pieces, _ = known[outcome.evaluation.mask]
                yield self._together(pieces, split, outcome) if pieces else outcome

    def _pieces(self, bits: str, split: Split) -> tuple[list[Evaluation], Split]:
        """What a split or size of a mask can be put together from, and the size that is missing.

        That is one record of all of it, with more around it; or records that share no example.
        The unpruned network is measured itself, which tells whether parts are like the whole.
        """
        if "1" not in bits:
            return [], split
        whole, lots = whole_of(split), self.objective.lots(split)
        left, found = set(lots.lots(split)), list[Evaluation]()
        sizes = self._sizes.get((bits, whole), {})
        for name, record in sorted(sizes.items(), key=lambda item: (-item[1].samples, item[0])):
            own = set(lots.lots(name))
            if own >= set(lots.lots(split)) and (name == split or self._each(record) is not None):
                return [record], ""
            if own <= left and (self.objective.adds_up or split != whole):
                left -= own
                found.append(record)
        return found, sized(whole, left, lots.count) if left else ""

    def _together(
        self, pieces: Sequence[Evaluation], split: Split, last: Outcome | None = None
    ) -> Outcome:
        """A size of a mask from records that cover it, together with what was measured last."""
        if last is not None and not last.evaluation.ok:
            return replace(last, evaluation=replace(last.evaluation, split=split))
        lots, records = self.objective.lots(split), [*pieces]
        each = np.full(lots.samples, np.nan)
        for record in pieces:
            each[lots.rows(record.split)] = self._each(record)
        if last is not None:
            records.append(last.evaluation)
            each[lots.rows(last.evaluation.split)] = np.nan if last.each is None else last.each
        each = each[lots.rows(split)]
        weights = [record.samples for record in records]
        known, disjoint = not np.isnan(each).any(), sum(weights) == len(each)
        told = [{**e.metrics, "": e.loss or 0.0} for e in records] if disjoint else [{}]
        mean = {
            name: self.objective.average(name, [values[name] for values in told], weights)
            for name in told[0]
        }
        loss = mean.pop("", np.nan)
        found = replace(
            records[-1], split=split, loss=float(each.mean()) if known else loss, metrics=mean,
            samples=len(each), seconds=0.0 if last is None else last.evaluation.seconds,
        )  # fmt: skip
        return Outcome(found, torch.from_numpy(each) if known else None)

    def _each(self, record: Evaluation) -> NDArray[np.float32] | None:
        """The stored losses [n] of the examples that an evaluation saw."""
        return self.storage.losses(record.mask, record.split, record.samples)

    def with_losses(self, record: Evaluation) -> Evaluation:
        """The record with its losses, each in its place among all examples of the split."""
        lots, losses = self.objective.lots(record.split), self._each(record)
        if not record.ok or losses is None:
            return record
        each = np.full(lots.samples, np.nan, np.float32)
        each[lots.rows(record.split)] = losses
        return replace(record, each=each)

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
        if split != "search":  # which the next plan would learn from, and choose another mask
            self.storage.add(replace(outcome.evaluation, origin="finalist"), _each(outcome))
        told(outcome.evaluation)
        return outcome, unpruned


def offered(space: Space, objective: Objective) -> dict[str, Any]:
    """What a search gets of an objective: the lots that evaluations may see, and scores' picks.

    No lots where that does not pay: to choose a mask takes as long as fractions of a second. Losses
    of lots differ by rounding, the more in half precision.
    """
    work = cost(space.graph).macs * objective.samples("search")
    lots = objective.lots("search").sizes if work >= WORTH else []
    kinds = [objective.precision or "", *(vertex.dtype for vertex in space.graph.vertices)]
    alike = HALF if any("float16" in kind for kind in kinds) else ALIKE
    return {"lots": lots, "alike": alike, "picks": partial(picks, space, objective)}


def _each(outcome: Outcome) -> NDArray[Any] | None:
    """The loss of every example [n], if known."""
    return None if outcome.each is None else outcome.each.numpy()


def in_order(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The same whatever the order in which workers finished: fits depend on it in the last bits.

    Of one mask a result comes after a failure, which has seen no samples.
    """
    return sorted(evaluations, key=lambda e: (e.split, e.mask, e.samples))
