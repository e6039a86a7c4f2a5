"""Finalists: the most promising masks meet on data that no search has seen."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..evaluation.objective import TRIAL
from ..evaluation.records import Split
from ..graph.graph import Mask
from ..search import Ask, Questions
from .measuring import Measuring
from .progress import Teller

ROUNDS = 8  # the more, the more each choice knows; the fewer, the more go side by side
ALIKE = 4.0  # units in which two masks differ, beyond which one says little of the other
NOISE = 0.25  # variance of an error that no other mask shares, where the shared one is 1
LEAST_VERIFIED = 3  # finalists that meet on the whole verify split

Array = NDArray[np.float64]


def rounds(masks: Sequence[Mask], expected: Sequence[float], count: int) -> Questions:
    """Which of many masks are tried on fresh data, in eight rounds at most.

    The lowest of many losses is too good to be true, and masks that are alike are so by much
    the same, since they are right about the same examples by chance. Therefore what a loss on
    fresh data is above expectation is expected of similar masks as well, and the next round
    goes to the masks that are the best then.

    Yields:
        An Ask a round; send back the evaluations on fresh data.
    """
    X, hoped = np.array([mask.bits for mask in masks], float), np.asarray(expected, float)
    left, tried, errors = set(range(len(masks))), list[int](), list[float]()
    together = -(-count // ROUNDS)
    for first in range(0, min(count, len(masks)), together):
        hope = hoped + error(X, tried, errors)
        best = sorted(left, key=lambda i: (hope[i], i))[: min(together, count - first)]
        found = yield Ask("verifying", "finalist", tuple(masks[i] for i in best))
        left -= set(best)
        for i, e in zip(best, found, strict=True):
            if e.loss is not None:
                tried.append(i)
                errors.append(e.loss - hoped[i])


def error(X: Array, tried: Sequence[int], errors: Sequence[float]) -> Array:
    """By how much losses on fresh data are expected to be above those of a search, [n].

    The mean of a Gaussian process over masks X [n, units] with covariance 1 + exp(-h / 4), h the
    units in which two masks differ, given the errors of those tried.
    """
    if not tried:
        return np.zeros(len(X))
    rows = X[list(tried)]
    covariance = 1 + np.exp(-np.abs(X[:, None] - rows).sum(axis=2) / ALIKE)
    own = covariance[list(tried)] + NOISE * np.eye(len(rows))
    return np.asarray(covariance @ np.linalg.solve(own, np.asarray(errors)))


def verified(
    measuring: Measuring, masks: Sequence[Mask], expected: Sequence[float], count: int,
    told: Teller,
) -> Sequence[Mask]:  # fmt: skip
    """The best finalists, lowest loss on the verify split first; as expected if there is none.

    Args:
        measuring: answers what is asked.
        masks: candidates.
        expected: their losses on the search split.
        count: finalists, tried on the first quarter of the verify split if that is enough data.
            The best quarter of them, at least three, meet on the whole of it.
        told: of every evaluation.

    Raises:
        PlanError: every finalist failed.
    """
    splits = measuring.objective.splits
    if "verify" not in splits:
        return [masks[int(i)] for i in np.argsort(expected, kind="stable")[:LEAST_VERIFIED]]
    told.phase = "verifying"
    first: Split = "trial" if "trial" in splits and count > LEAST_VERIFIED else "verify"
    passing = max(count // TRIAL, LEAST_VERIFIED) if first == "trial" else 0
    told.total += passing
    ranked = measuring.ranked(rounds(masks, expected, count), first, told)
    if passing:
        ranked = measuring.ranked(asked("verifying", ranked[:passing]), "verify", told)
    return ranked[:LEAST_VERIFIED]


def asked(phase: str, masks: Sequence[Mask]) -> Questions:
    """All of some masks at once."""
    yield Ask(phase, "finalist", tuple(masks))
