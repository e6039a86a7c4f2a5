"""Amounts with units, read and written."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

import edgewise as ew
from edgewise.errors import BudgetError
from edgewise.graph.budget import Budget
from edgewise.search import Space
from edgewise.values.quantities import duration

WHOLE = ew.Cost(40, 20_000_000, 300_000_000, 2**20, 8 * 10**7, 0.01)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("params", "20M", 20e6),
        ("params", "1.5k", 1500),
        ("params", "700", 700),
        ("params", "0.7", 0.7 * 20e6),
        ("macs", "0.3G", 0.3e9),
        ("macs", "2.5e2 m", 250e6),
        ("macs", "70%", 210e6),
        ("units", "46", 46),
        ("activation_bytes", "64MB", 64e6),
        ("weight_bytes", "10MiB", 10 * 2**20),
        ("weight_bytes", "10 kib", 10 * 2**10),
        ("latency", "8ms", 0.008),
        ("latency", "800us", 0.0008),
        ("latency", "800µs", 0.0008),
        ("latency", "0.5s", 0.5),
        ("latency", "80%", 0.008),
        ("latency", 0.8, 0.008),
        ("latency", 1.0, 0.01),
        ("macs", 1, 1),
    ],
)
def test_limits_with_units(name: str, text: str | float, expected: float) -> None:
    assert Budget(**{name: text}).absolute(WHOLE) == {name: pytest.approx(expected)}


def test_numbers_as_text_are_numbers_and_a_budget_reads_its_own_limits() -> None:
    assert Budget(macs="0.7", params="100") == Budget(macs=0.7, params=100)
    budget = Budget(params="20M", latency=" 8ms", macs=0.5)
    assert Budget(**budget.limits) == budget
    assert str(budget) == "params=20M, macs=0.5, latency=8ms"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("macs", "3MB", 'unknown unit "MB". Units of macs: K, M, G, T, %'),
        ("activation_bytes", "3M", 'unknown unit "M". Units of activation_bytes: B, KB, MB'),
        ("latency", "3", "needs a unit"),
        ("latency", 8, '"8ms"'),
        ("latency", 2.5, '"2.5ms"'),
        ("latency", "3 min", "Units of latency: s, ms, us"),
        ("params", "120%", "more than the whole"),
        ("params", "0M", "must be positive"),
        ("params", "much", "write a NUMBER"),
        ("params", "", "write a NUMBER"),
        ("params", "-3M", "write a NUMBER"),
        ("params", 0, "positive"),
        ("params", True, "positive"),
        ("params", [3], "positive"),
    ],
)
def test_limits_that_cannot_be(name: str, value: object, words: str) -> None:
    with pytest.raises(BudgetError) as error:
        Budget(**{name: value})
    assert words in str(error.value)
    assert name in str(error.value)


def test_an_unknown_limit_gets_the_nearest_name() -> None:
    with pytest.raises(BudgetError, match=r"No limit is called 'mac'\. Did you mean 'macs'\?"):
        Budget(mac=0.7)  # type: ignore[call-arg]
    with pytest.raises(BudgetError, match=r"'watts'\. Known: units, params, macs, activation_"):
        Budget(watts=3)  # type: ignore[call-arg]


def test_budgets_are_copied_and_pickled() -> None:
    budget = Budget(macs=0.7, latency="8ms")
    assert pickle.loads(pickle.dumps(budget)) == copy.deepcopy(budget) == budget
    assert dataclasses.replace(budget, macs=0.5).limits == {"macs": 0.5, "latency": "8ms"}


def test_only_the_limits_that_are_missed_are_named(residual: ew.Graph) -> None:
    with pytest.raises(BudgetError, match=r"leaves params 277 \(7\.2%\)\."):
        Space(residual, Budget(params=3, macs=0.9)).reachable()


def test_absolute_limits_hold(residual: ew.Graph) -> None:
    space = Space(residual, Budget(weight_bytes="8KB"))
    assert space.unpruned.weight_bytes > 8000
    assert 0 < ew.cost(residual, space.reachable()).weight_bytes <= 8000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2 s"), (0.00812, "8.12 ms"), (1e-3, "1 ms"), (45.6e-6, "45.6 us"), (0, "0 us")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
