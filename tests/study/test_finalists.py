"""Finalists are tried in rounds that learn from each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import answered
from edgewise.study.finalists import error, rounds

UNITS = 12


def masks_of(rows: np.ndarray) -> list[ew.Mask]:
    return [ew.Mask(tuple(map(bool, row)), "any") for row in rows]


def drawn(seed: int, count: int) -> list[ew.Mask]:
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(masks_of(rng.integers(0, 2, (count, UNITS)))))


def tried(masks, expected, count, fresh) -> list[list[ew.Mask]]:
    """The masks of each round, when `fresh` tells losses on fresh data."""
    seen: list[list[ew.Mask]] = []

    def answer(ask):
        seen.append(list(ask.masks))
        return [Evaluation(str(m), "verify", fresh(m)) for m in ask.masks]

    answered(rounds(masks, expected, count), answer)
    return seen


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 40))
def test_as_many_are_tried_as_are_asked_for_each_once(seed: int, count: int, size: int) -> None:
    masks = drawn(seed, size)
    expected = np.random.default_rng(seed).random(len(masks)).tolist()
    found = tried(masks, expected, count, lambda m: 1.0)
    flat = [m for some in found for m in some]
    assert len(flat) == len(set(flat)) == min(count, len(masks))
    assert len(found) <= 8
    best = sorted(range(len(masks)), key=lambda i: expected[i])
    assert found[0] == [masks[i] for i in best[: len(found[0])]]


def test_without_surprises_the_best_expected_are_tried() -> None:
    masks = drawn(1, 30)
    expected = np.linspace(0.5, 0.9, len(masks)).tolist()
    losses = dict(zip(masks, expected, strict=True))
    found = tried(masks, expected, 8, losses.__getitem__)
    assert [m for some in found for m in some] == masks[:8]


def test_masks_like_one_that_disappoints_wait() -> None:
    """Of two families the better expected one is worse on fresh data: the other gets its turn."""
    near = np.eye(UNITS, dtype=int)[:6]
    lucky, other = masks_of(near), masks_of(1 - near)
    expected = [0.50] * 6 + [0.53] * 6
    fresh = dict.fromkeys(lucky, 0.7) | dict.fromkeys(other, 0.56)
    found = tried(lucky + other, expected, 4, fresh.__getitem__)
    assert found[0] == lucky[:1]
    assert set(found[1] + found[2] + found[3]) <= set(other)


def test_what_fails_says_nothing_of_others() -> None:
    masks = drawn(2, 10)
    expected = np.linspace(0.5, 0.9, len(masks)).tolist()
    found = tried(masks, expected, 4, lambda m: None)
    assert [m for some in found for m in some] == masks[:4]


@given(st.integers(0, 10**6))
def test_errors_are_those_of_a_gaussian_process(seed: int) -> None:
    """Against the joint normal distribution, conditioned one observation after the other."""
    X = np.array([m.bits for m in drawn(seed, 12)], float)
    rng = np.random.default_rng(seed)
    seen, values = [0, 3, 5], rng.normal(size=3)
    distance = np.abs(X[:, None] - X[None]).sum(axis=2)
    covariance, mean = 1 + np.exp(-distance / 4), np.zeros(len(X))
    for place, value in zip(seen, values, strict=True):
        gain = covariance[:, place] / (covariance[place, place] + 0.25)
        mean = mean + gain * (value - mean[place])
        covariance = covariance - np.outer(gain, covariance[place])
    assert error(X, seen, values.tolist()) == pytest.approx(mean, abs=1e-9)
    assert error(X, [], []) == pytest.approx(np.zeros(len(X)))
