"""How sure a mean or a proportion is, and whether two masks differ."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ..errors import EdgewiseError
from ..evaluation.evaluator import Outcome
from ..evaluation.records import Comparison, Evaluation, whole_of
from ..pruning.plan import Measured

_RESAMPLES = 2000


def measured(outcome: Outcome, unpruned: Evaluation) -> Measured:
    """A measurement beside the unpruned one, with a bootstrap interval where it can be had."""
    record = outcome.evaluation
    assert record.loss is not None
    assert unpruned.loss is not None
    interval = None if outcome.each is None else bootstrap(outcome.each.numpy())
    found = {k: exact(n, record.samples) for k, n in outcome.counts.items()}
    for name, value in record.metrics.items():  # as perplexity is of cross-entropy
        if interval and np.isclose(value, np.exp(record.loss)):
            found[name] = (float(np.exp(interval[0])), float(np.exp(interval[1])))
    return Measured(
        loss=record.loss,
        metrics=dict(record.metrics),
        samples=record.samples,
        unpruned_loss=unpruned.loss,
        unpruned_metrics=dict(unpruned.metrics),
        interval=interval,
        metric_intervals=found,
    )


def examples_seen(evaluations: Iterable[Evaluation]) -> int:
    """How many examples evaluations of one split saw in all; what continued counts once."""
    parts, whole = Counter[str](), dict[str, int]()
    for e in evaluations:
        if e.split == whole_of(e.split):
            whole[e.mask] = e.samples
        else:
            parts[e.mask] += e.samples
    return sum((parts | Counter(whole)).values())


def exact(count: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Clopper & Pearson 1934)."""
    found = binomtest(count, samples).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def compare(first: NDArray[Any], second: NDArray[Any]) -> Comparison:
    """Losses [n] of two masks on the same examples, compared example by example.

    Raises:
        EdgewiseError: there is no example, or the masks saw different numbers of them.
    """
    if first.shape != second.shape or not first.size:
        raise EdgewiseError(
            "Two masks can be compared on the same examples only, at least one; got "
            f"{first.size} and {second.size}."
        )
    each = first.astype(np.float64) - second.astype(np.float64)
    return Comparison(float(each.mean()), bootstrap(each), each.size)


def bootstrap(data: NDArray[Any], seed: int = 0) -> tuple[float, float]:
    """A 95 % percentile bootstrap interval of the mean of values [n]."""
    rng = np.random.default_rng(seed)
    means = [data[rng.integers(0, len(data), len(data))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
