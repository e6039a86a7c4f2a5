"""Who is told of finished evaluations."""

import logging
import math
import time
from collections.abc import Callable

from ..evaluation.records import Evaluation, Progress, whole_of
from ..graph.outputs import severed
from ..search import Space

log = logging.getLogger("edgewise")
Callback = Callable[[Progress], None]
Told = Callable[..., None]  # of an evaluation, and whether it was known before


def silent(record: Evaluation, kept: bool = False) -> None:
    """Tells nobody of an evaluation."""


class Teller:
    """Turns finished evaluations into Progress for a callback.

    `title` stands for the phases of a search, if it is given.
    """

    def __init__(
        self, callback: Callback | None, space: Space, total: float, title: str = ""
    ) -> None:
        self.callback, self.space, self.total, self.title = callback, space, total, title
        self.phase, self.done, self.failures = "", 0.0, 0
        self.split, self.best, self.metrics = "", math.inf, dict[str, float]()
        self.severed, self.parts = set[str](), dict[str, float]()
        self.begin = self.last = time.monotonic()
        self.fresh, self.working = 0.0, 0.0  # what was not known before, and the seconds it took

    def __call__(self, record: Evaluation, kept: bool = False) -> None:
        share = self._share(record)
        self.done += share
        now = time.monotonic()
        if not kept:
            self.fresh, self.working = self.fresh + share, self.working + now - self.last
        self.last = now
        self.failures += not record.ok
        whole = whole_of(record.split)
        if whole != self.split:  # losses of different data do not compare
            self.split, self.best, self.metrics = whole, math.inf, {}
        better = record.loss is not None and record.loss < self.best and record.split == whole
        if better and self.space.allows(self.space.graph.mask(bits=record.mask)):
            self.best, self.metrics = record.loss or 0.0, dict(record.metrics)
        if not kept and record.ok and self.phase != "reporting":  # of a plan, which tells it
            self._tell_severed(record)
        if self.callback is not None:
            done = round(self.done, 9)
            total = math.ceil(max(self.total, done))
            best = self.best if math.isfinite(self.best) else None
            pace = self.fresh / self.working if self.working > 0 else None
            so_far = (int(done), total, best, self.failures, now - self.begin, pace, self.metrics)
            self.callback(Progress(self.phase, *so_far))

    def _share(self, record: Evaluation) -> float:
        """Of an evaluation that this is; of a whole one, what its parts before leave."""
        bits = record.split.partition(":")[2]
        if not bits:
            return 1.0 - self.parts.pop(record.mask, 0.0)
        share = bits.count("1") / len(bits)
        self.parts[record.mask] = self.parts.get(record.mask, 0.0) + share
        return share

    def _tell_severed(self, record: Evaluation) -> None:
        """Log, once for each output, that a mask made it independent of an input."""
        graph = self.space.graph
        for output, inputs in severed(graph, graph.mask(bits=record.mask)).items():
            if output not in self.severed:
                self.severed.add(output)
                log.warning(
                    "Under mask %s the output %s no longer depends on %s. It is measured all the "
                    "same; if the loss does not look at that output, it should.",
                    record.mask, output, ", ".join(inputs),
                )  # fmt: skip

    def ended(self, patient: bool) -> None:
        """Log why a search ended before its evaluations were used up, where it did."""
        if self.done < self.total:
            log.info(
                "The search ended after %d of %d evaluations: it finds no further mask within the "
                "budget%s.", self.done, self.total,
                ", or none that is expected to be better above the noise" if patient else "",
            )  # fmt: skip
