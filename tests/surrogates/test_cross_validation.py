"""Held-out predictions, the choice of a surrogate by them, and intervals that hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from edgewise import surrogates
from edgewise.surrogates.cross_validation import hold_out, spared
from edgewise.surrogates.intervals import calibrate
from edgewise.surrogates.selection import checkpoint, choose

UNITS = 10


def masks(count: int, rng: np.random.Generator) -> Any:
    """The empty mask, single units, then random masks of two to five."""
    rest = np.zeros((count, UNITS))
    for row in rest:
        row[rng.permutation(UNITS)[: rng.integers(2, 6)]] = 1.0
    return np.vstack([np.zeros(UNITS), np.eye(UNITS), rest])


def additive(X: Any, rng: np.random.Generator, noise: float = 0.1) -> Any:
    effects = np.linspace(0.05, 0.6, UNITS)
    return np.exp(X @ effects + noise * rng.normal(size=len(X)))


def pairwise(X: Any) -> Any:
    return np.exp(sum(X[:, i] * X[:, (i + 3) % UNITS] for i in range(UNITS)) - 0.2 * X[:, 0])


CANDIDATES = {"Degree2": surrogates.Degree2, "Linear": surrogates.Linear}


class Recorder(surrogates.Linear):
    """A linear surrogate that remembers what it was trained on and asked for."""

    seen: list[tuple[Any, Any]] = []  # noqa: RUF012

    def fit(self, X: Any, y: Any) -> Any:
        self.trained = X
        return super().fit(X, y)

    def predict_link(self, X: Any, return_std: bool = False) -> Any:
        Recorder.seen.append((self.trained, X))
        return super().predict_link(X, return_std)


def test_every_mask_of_two_units_is_held_out_once_and_no_other() -> None:
    rng = np.random.default_rng(0)
    X = masks(30, rng)
    X = np.vstack([X, X[15:20]])  # some are measured twice
    Recorder.seen.clear()
    held = hold_out(Recorder, X, additive(X, rng))
    asked = np.vstack([test for _, test in Recorder.seen])
    assert len(held.mean) == len(asked) == spared(X).sum() == 35  # type: ignore[union-attr]
    assert (asked.sum(axis=1) >= 2).all()
    for train, test in Recorder.seen:
        assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}
        assert (train.sum(axis=1) <= 1).sum() == UNITS + 1


def test_too_few_masks_are_no_measure() -> None:
    rng = np.random.default_rng(0)
    X = masks(19, rng)
    X = np.vstack([X, X[-5:]])
    y = additive(X, rng)
    assert hold_out(surrogates.Linear, X, y) is None
    choice = choose(CANDIDATES, X, y)
    assert (choice.name, choice.scores, choice.held) == ("Degree2", {}, 0)
    assert choice.record == {}
    with pytest.raises(ValueError, match="at least 20 different masks"):
        calibrate(surrogates.Linear, X, y)


def test_the_better_surrogate_is_chosen_and_the_first_in_doubt() -> None:
    rng = np.random.default_rng(1)
    X = masks(80, rng)
    assert choose(CANDIDATES, X, pairwise(X)).name == "Degree2"
    backwards = dict(reversed(CANDIDATES.items()))
    clear = choose(backwards, X, pairwise(X))
    assert clear.name == "Degree2"
    assert clear.scores["Degree2"] > clear.scores["Linear"] + 0.5
    assert clear.held == 80
    assert clear.record["compared"]["held-out masks"] == 80
    same = {"one": surrogates.Linear, "other": surrogates.Linear}
    assert choose(same, X, additive(X, rng)).name == "one"


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.integers(20, 40))
def test_a_choice_is_a_pure_function_of_the_evaluations(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    X = masks(count, rng)
    y = additive(X, rng)
    first = choose(CANDIDATES, X, y)
    np.random.seed(seed)  # noqa: NPY002 - global randomness must not matter
    assert choose(CANDIDATES, X.copy(), y.copy()) == first


@given(st.integers(0, 3000))
def test_comparisons_are_made_when_there_is_half_as_much_more(count: int) -> None:
    last = checkpoint(count)
    assert last <= count
    assert checkpoint(last) == last
    assert (last == 0) == (count < 40)
    assert last == 0 or count < 1.5 * last
    assert checkpoint(count + 1) in (last, count + 1)


@pytest.mark.parametrize("tool", [hold_out, calibrate])
def test_malformed_evaluations_are_refused(tool: Any) -> None:
    rng = np.random.default_rng(0)
    X = masks(30, rng)
    y = additive(X, rng)
    holes = np.append(y[1:], np.nan)
    for wrong, losses, message in [
        (X[0], y, "shape"), (X, y[1:], "shape"), (X, holes, "failed"), (X, y - 2.0, "y > 0"),
        (X * 0.5, y, "only"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tool(surrogates.Linear, wrong, losses)


def test_constant_losses_choose_and_calibrate() -> None:
    X = masks(30, np.random.default_rng(0))
    assert choose(CANDIDATES, X, np.full(len(X), 0.7)).name == "Degree2"
    low, high = calibrate(surrogates.Linear, X, np.full(len(X), 0.7)).predict(X)
    assert (low <= 0.7).all()
    assert (high >= 0.7).all()


def test_intervals_cover_what_they_say_where_deviations_are_wrong() -> None:
    """A linear surrogate of a loss that is not linear, with heavy tails."""
    rng = np.random.default_rng(2)
    X = masks(4000, rng)
    y = np.exp(np.log(additive(X, rng)) + 0.15 * rng.standard_t(3, len(X)) * (1 + X[:, 0]))
    found = calibrate(surrogates.Linear, X[:1000], y[:1000])
    for level in (0.5, 0.8, 0.95):
        low, high = found.predict(X[1000:], level)
        assert np.mean((low <= y[1000:]) & (y[1000:] <= high)) == pytest.approx(level, abs=0.05)


def test_levels_that_cannot_be_told_are_refused() -> None:
    rng = np.random.default_rng(0)
    X = masks(25, rng)
    found = calibrate(surrogates.Linear, X, additive(X, rng))
    assert_array_equal(found.residuals, np.sort(found.residuals))
    assert found.factor(0.5) == found.residuals[12]
    with pytest.raises(ValueError, match="99 are needed"):
        found.factor(0.99)
    for level in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="0 < level < 1"):
            found.factor(level)
