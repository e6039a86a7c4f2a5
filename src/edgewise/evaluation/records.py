"""The records that a study leaves: evaluations, comparisons, the state of a run. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..values.markup import tag

Status = Literal["ok", "failed", "nan", "out of memory"]
Split = str  # one of SPLITS, or a size of one, such as "search:01100000"
SPLITS = ("search", "trial", "verify", "report")


def whole_of(split: Split) -> Split:
    """The split of which a size is a part; a whole split itself."""
    return split.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One mask measured.

    Args:
        mask: the mask's bits as text, "1" = removed.
        split: which data: "search", "verify", "report", or "trial", the first part of "verify".
            Of some lots of its examples only, a size: "search:01100000".
        loss: mean loss over the samples; None unless status is "ok".
        metrics: further means by name.
        samples: examples seen.
        seconds: wall time it took.
        status: "ok", or why it is none: "failed" (an exception), "nan", "out of memory".
        error: what went wrong.
        origin: why this mask was evaluated: "unpruned", "leave-one-out", "sampled", "proposed",
            "single pick" (the cheapest units by leave-one-out), "scored" (by scores of one pass),
            "ranking" (the least important widths), "finalist" or "certificate" (a random mask
            beside the chosen one).
        predicted: the surrogate's prediction before the evaluation, if there was one.
        deviation: its standard deviation.
        number: position in the study, from 0.
        noise: standard error of a loss that a search has estimated from some of the examples.
        each: [n] the loss of every example of the whole split, nan where it was not seen; only
            where a search asked for it.

    Examples:
        >>> first = study.evaluations[0]
        >>> first.origin, first.status, first.samples
        ('unpruned', 'ok', 32)
    """

    mask: str
    split: Split
    loss: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    status: Status = "ok"
    error: str | None = None
    origin: str = ""
    predicted: float | None = None
    deviation: float | None = None
    number: int = -1
    noise: float = 0.0
    each: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        return self.status == "ok" and self.loss is not None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, told to a callback after every evaluation; `str` says it in words.

    Args:
        phase: "leave-one-out", "sampling", "proposals", "verifying",
            "certifying" or "reporting".
        done: evaluations there are.
        total: evaluations asked for.
        best: lowest loss so far among masks within the budget, None if there is none.
        failures: evaluations that failed.
        seconds: spent in this run so far.
        per_second: evaluations a second, those not counted that were known before; None if all
            were.
        metrics: of the mask whose loss is the best.

    Examples:
        >>> print(Progress("sampling", 50, 200, 0.412, 0, 10.0, 5.0))
        sampling: 50/200, 0:00:30 left, best loss 0.412
    """

    phase: str
    done: int
    total: int
    best: float | None
    failures: int
    seconds: float
    per_second: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Until all is done at the pace so far, None if there is no pace yet."""
        return (self.total - self.done) / self.per_second if self.per_second else None

    @property
    def note(self) -> str:
        """Time left or pace, the best so far and failures in words, as far as there are any.

        Healing tells the mean loss of an epoch, which is not the best so far.
        """
        word = "loss" if self.phase == "healing" else "best loss"
        parts = ["no loss yet" if self.best is None else f"{word} {self.best:.4g}"]
        parts += [f"{name} {value:.4g}" for name, value in self.metrics.items()]
        if self.failures:
            parts.append(f"{self.failures} failed")
        if self.seconds_left and self.done < self.total:
            parts.insert(0, f"{timedelta(seconds=round(self.seconds_left))} left")
        elif (pace := self.per_second) is not None and pace > 0:
            parts.append(f"{60 * pace:.1f}/min" if pace < 1 else f"{pace:.1f}/s")
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.phase}: {self.done}/{self.total}, {self.note}"

    def _repr_html_(self) -> str:
        return tag("div", tag("progress", value=self.done, max=max(self.total, 1)), f" {self}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two masks on the same examples.

    Args:
        difference: mean of the first mask's loss minus the second's; negative: the first is better.
        interval: 95 % bootstrap interval of that mean; the masks differ if it leaves out 0.
        samples: examples compared.

    Examples:
        >>> study.compare(graph.empty, graph.empty).difference
        0.0
    """

    difference: float
    interval: tuple[float, float]
    samples: int
