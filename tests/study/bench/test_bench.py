"""Baselines spend what they are allowed, stay within the budget, and are compared alike."""

from __future__ import annotations

import numpy as np
import pytest

import edgewise as ew
import jobs
from edgewise import latency
from edgewise.errors import EdgewiseError
from edgewise.evaluation.records import Evaluation
from edgewise.search import Ask, Space, answered
from edgewise.study.bench import METHODS, baselines, bench

LIMIT = 40
pytestmark = pytest.mark.xdist_group("bench")  # what is measured once serves all


@pytest.fixture(scope="module")
def study():
    graph, objective = jobs.make()
    with ew.Study(graph, objective) as study:
        yield study


@pytest.fixture(scope="module")
def rows(study):
    """All methods at one budget, two seeds."""
    found = bench(study, jobs.BUDGET, list(METHODS)[:-1], evaluations=LIMIT, seeds=(0, 1))
    return {(row.method, row.seed): row for row in found}


def test_every_method_has_a_row_within_budget_and_limit(study, rows) -> None:
    space = Space(study.graph, jobs.BUDGET)
    names = set(METHODS) - {"exhaustive", "ranking"}  # there are no widths
    assert {name for name, _ in rows} == names
    assert {name for name, seed in rows if seed == 1} == {"edgewise", "random", "evolution"}
    for (name, _), row in rows.items():
        mask = study.graph.mask(u for u in range(len(study.graph.units))
                                if study.graph.units[u].name in row.removed)  # fmt: skip
        assert space.allows(mask), name
        assert row.cost == space.cost(mask)
        assert 1 <= row.evaluations <= LIMIT
        assert len(row.history) == row.evaluations
        known = [value for value in row.history if value is not None]
        assert known == sorted(known, reverse=True)
        assert known[-1] <= row.search_loss + 1e-12
        assert row.interval[0] <= row.loss <= row.interval[1]
        assert row.loss == study.evaluate([mask], "report")[0].loss


def test_nothing_is_measured_twice(study, rows) -> None:
    before = len(study.evaluations)
    again = {(r.method, r.seed): r for r in bench(study, jobs.BUDGET, ["greedy", "evolution"],
                                                  evaluations=LIMIT)}  # fmt: skip
    assert len(study.evaluations) == before
    assert all(rows[key] == row for key, row in again.items())


def test_what_does_not_exist_is_refused(study) -> None:
    with pytest.raises(EdgewiseError, match="No method is called 'gredy'"):
        list(bench(study, jobs.BUDGET, ["gredy"]))
    with pytest.raises(EdgewiseError, match="networks within the budget; allow as many"):
        list(bench(study, jobs.BUDGET, ["exhaustive"], evaluations=10))


def asked_of(steps, loss):
    """All masks that a method asks for, with losses that a function of the mask gives."""
    asked = []

    def answer(ask):
        assert isinstance(ask, Ask)
        asked.extend(ask.masks)
        return [Evaluation(str(m), "search", loss(m)) for m in ask.masks]

    answered(steps, answer)
    return asked


@pytest.fixture(scope="module")
def space():
    graph, _ = jobs.make(kinds=("edge",))
    return Space(graph, jobs.BUDGET)


def test_greedy_measures_all_that_is_left_in_every_step(space) -> None:
    weights = np.random.default_rng(0).uniform(1, 2, len(space.graph.units))
    asked = asked_of(baselines.greedy(space, 1000), lambda m: 1 + weights @ np.array(m.bits))
    sizes = [len(mask.removed) for mask in asked]
    assert sizes == sorted(sizes)
    last = [mask for mask in asked if space.allows(mask)]
    assert last
    chosen = min(last, key=lambda m: weights @ np.array(m.bits))
    single = sizes.count(1)
    assert sizes[0] == 0
    assert single == sum(space.connected(space.graph.mask([u])) for u in space.free)
    for removed in range(1, len(chosen.removed)):
        assert any(len(m.removed) == removed and not space.allows(m) for m in asked)


def test_greedy_ends_at_the_budget_when_evaluations_run_out(space) -> None:
    space, limit = Space(space.graph, ew.Budget(macs=0.5)), len(space.free) + 3
    asked = asked_of(baselines.greedy(space, limit), lambda m: 1.0 + len(m.removed))
    assert not any(map(space.allows, asked[:-1]))
    assert len(asked) <= limit
    assert space.allows(asked[-1])


def test_evolution_finds_what_a_sum_of_damages_hides(space) -> None:
    rng = np.random.default_rng(3)
    weights = rng.uniform(0, 1, len(space.graph.units))
    best = min(asked_of(baselines.exhaustive(space, 10**6), lambda m: 1.0),
               key=lambda m: weights @ np.array(m.bits))  # fmt: skip
    asked = asked_of(baselines.evolution(space, 60, rng), lambda m: 1 + weights @ np.array(m.bits))
    assert len(asked) <= 60
    assert len({space.network(m) for m in asked}) == len(asked)
    assert all(map(space.allows, asked))
    found = min(float(weights @ np.array(m.bits)) for m in asked)
    assert found <= float(weights @ np.array(best.bits)) + 1e-9


def test_widths_are_nested_in_every_baseline() -> None:
    graph, _ = jobs.make(kinds=("edge", "hidden"))
    space, rng = Space(graph, ew.Budget(macs=0.6)), np.random.default_rng(0)
    score = rng.uniform(0, 1, len(graph.units))
    for steps in (
        baselines.at_random(space, 10, rng), baselines.scored(space, score),
        baselines.ranking(space), baselines.leave_one_out(space),
        baselines.greedy(space, 40), baselines.evolution(space, 30, rng),
    ):  # fmt: skip
        asked = asked_of(steps, lambda m: 1 + score @ np.array(m.bits))
        assert asked
        assert all(graph.nest(mask) == mask for mask in asked)
        assert any(map(space.allows, asked))


def test_too_many_units_for_an_exhaustive_search(space) -> None:
    graph, _ = jobs.make(kinds=("edge", "layer", "hidden"))
    big = Space(graph, jobs.BUDGET)
    if len(big.free) > baselines.EXHAUSTED:
        with pytest.raises(EdgewiseError, match="too many masks"):
            list(baselines.exhaustive(big, 10))
    else:
        raise AssertionError("The test needs a larger network.")


@pytest.mark.usefixtures("no_clock")
def test_methods_keep_a_latency_budget_as_predicted() -> None:
    graph, objective = jobs.make(recovery="none")
    table = latency.measure(graph, threads=1)
    study = ew.Study(graph, objective, latency=table)
    rows = list(bench(study, ew.Budget(latency=0.8), ["random", "magnitude"], evaluations=12))
    assert len(rows) == 2
    for row in rows:
        assert row.cost.seconds is not None
        assert row.cost.seconds <= 0.8 * table.unpruned
