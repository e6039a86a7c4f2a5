"""A study from masks to a plan; what it survives is in test_faults.py."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewise as ew
import jobs
from edgewise.errors import BudgetError, EdgewiseError, ObjectiveError, PlanError, StorageError
from edgewise.evaluation.evaluator import Serial
from edgewise.evaluation.records import Progress
from edgewise.study.statistics import exact, examples_seen


def test_a_plan_says_what_was_measured(reference: ew.Plan) -> None:
    graph, objective = jobs.make()
    assert set(reference.measured) == {"search", "verify", "report"}
    mask = graph.mask(bits=reference.bits)
    assert reference.after == ew.cost(graph, mask)
    assert reference.after.macs <= 0.7 * reference.before.macs
    assert [graph.units[u].name for u in mask.removed] == list(reference.removed)
    report = reference.measured["report"]
    low, high = report.interval or (0.0, 0.0)
    assert low < report.loss < high
    for split in reference.measured.values():
        assert split.metric_intervals.keys() == {"accuracy"}
        low, high = split.metric_intervals["accuracy"]
        assert 0 <= low < split.metrics["accuracy"] < high <= 1 or split.metrics["accuracy"] in (
            0,
            1,
        )
    small = ew.prune(graph, reference).eval()
    x, _ = objective.splits["report"][0]
    again = objective.measure([small(*x)], "report")
    assert again.loss == pytest.approx(report.loss, rel=1e-5)


def test_the_same_seed_gives_the_same_plan(reference: ew.Plan) -> None:
    assert jobs.plan_of(None).to_dict() == reference.to_dict()


def test_another_seed_is_another_search() -> None:
    def masks(seed: int) -> list[str]:
        study = ew.Study(*jobs.make())
        study.run(20, jobs.BUDGET, seed=seed)
        return [e.mask for e in study.evaluations]

    assert masks(0) != masks(1)


def test_going_on_measures_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = ew.Study(*jobs.make(), url)
    first.run(25, jobs.BUDGET)
    before = first.evaluations
    again = ew.Study(*jobs.make(), url)
    again.run(25, jobs.BUDGET)
    assert again.evaluations == before
    again.run(30, jobs.BUDGET)
    assert again.evaluations[: len(before)] == before
    assert 25 * 32 < examples_seen(again.evaluations) <= 30 * 32


def test_what_is_looked_at_before_a_search_changes_nothing_and_is_measured_once() -> None:
    asked: list[str] = []

    class Counting(Serial):
        def evaluate(self, masks: Any, split: Any = "search", **options: Any) -> Any:
            asked.extend(f"{split} {mask}" for mask in masks)
            return super().evaluate(masks, split, **options)

    plain, study = ew.Study(*jobs.make()), ew.Study(*jobs.make(), executor=Counting)
    first = study.graph.mask([1])
    seen = [study.preview(mask) for mask in (study.graph.empty, first, first)]
    assert study.evaluations == []
    for each in (plain, study):
        each.run(20, 0.7)
    assert len(set(asked)) == len(asked)
    records = [[(e.mask, e.loss, e.origin) for e in s.evaluations] for s in (plain, study)]
    assert sorted(records[0]) == sorted(records[1])
    losses = {e.mask: e.loss for e in study.evaluations}
    assert [losses[e.mask] for e in seen] == [e.loss for e in seen]
    assert study.preview(first).origin == "leave-one-out"


def test_a_number_alone_limits_the_macs(caplog: pytest.LogCaptureFixture) -> None:
    study = ew.Study(*jobs.make())
    study.run(20, 0.7)
    assert "budget=0.7 is read as Budget(macs=0.7)" in caplog.text
    assert study.plan(finalists=2).budget == {"macs": 0.7}
    assert study.plan("65%", finalists=2).after.macs <= 0.65 * ew.cost(study.graph).macs
    rng = np.random.default_rng(0)
    assert ew.sample_masks(study.graph, 2, budget=0.7, rng=rng)


def test_a_new_budget_starts_from_what_is_known() -> None:
    study = ew.Study(*jobs.make())
    study.run(30, jobs.BUDGET)
    tighter = study.plan(ew.Budget(macs=0.5))
    assert tighter.after.macs <= 0.5 * tighter.before.macs
    count = len([e for e in study.evaluations if e.split == "search"])
    study.run(5, ew.Budget(macs=0.5))
    assert len([e for e in study.evaluations if e.split == "search"]) <= count + 5


def test_losses_of_examples_are_kept_and_compared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    graph, objective = jobs.make()
    one, two = graph.mask([0]), graph.mask([1])
    ew.Study(graph, objective, url).evaluate([graph.empty, one])
    study = ew.Study(*jobs.make(), url)
    each = [study.losses(m) for m in (graph.empty, one)]
    records = {e.mask: e for e in study.evaluations}
    for mask, losses in zip((graph.empty, one), each, strict=True):
        assert losses.dtype == np.float32
        assert losses.shape == (32,)
        assert losses.mean() == pytest.approx(records[str(mask)].loss, rel=1e-6)
    found = study.compare(one, graph.empty)
    assert found.difference == pytest.approx(float((each[1] - each[0]).mean()), rel=1e-5)
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.samples == 32
    back = study.compare(graph.empty, one)
    assert back.difference == -found.difference
    some = study.compare(one, graph.empty, rows=[3, 5])
    assert some.difference == pytest.approx(float((each[1] - each[0])[[3, 5]].mean()), rel=1e-5)
    assert study.losses(two) is None
    assert study.losses(one, "verify") is None
    with pytest.raises(ew.errors.EdgewiseError, match="No losses of single examples are stored"):
        study.compare(one, two)
    with pytest.raises(ew.errors.EdgewiseError, match="at least one"):
        study.compare(one, one, rows=slice(0))


def test_a_loss_that_is_a_mean_leaves_no_losses_of_examples() -> None:
    study = ew.Study(*jobs.make(lambda o, t: jobs.losses(o, t).mean()))
    mask = study.graph.mask([0])
    assert study.evaluate([mask])[0].ok
    assert study.losses(mask) is None


def test_failing_masks_do_not_end_a_study() -> None:
    calls = []

    def moody(outputs, targets):
        calls.append(1)
        if len(calls) % 9 == 5:
            raise RuntimeError("out of order")
        if len(calls) % 9 == 7:
            return outputs.mean() * float("nan")
        return jobs.losses(outputs, targets)

    study = ew.Study(*jobs.make(moody))
    study.run(30, jobs.BUDGET)
    states = [e.status for e in study.evaluations]
    assert len(states) == 30
    assert states.count("failed") >= 2
    assert states.count("nan") >= 2
    frame = study.frame()
    assert frame["loss"].notna().sum() == states.count("ok")


def test_an_objective_that_cannot_measure_the_model_says_so() -> None:
    def broken(outputs, targets):
        raise RuntimeError("wrong labels")

    study = ew.Study(*jobs.make(broken))
    with pytest.raises(
        ObjectiveError, match=r"(?s)wrong labels\. Check .* traced with .*float32 of"
    ):
        study.run(10, jobs.BUDGET)
    with pytest.raises(ObjectiveError, match="The loss is nan"):
        ew.Study(*jobs.make(lambda o, t: o.mean() * float("nan"))).run(10, jobs.BUDGET)


def test_an_unpruned_network_that_fails_on_the_report_split_is_said() -> None:
    inputs, targets = jobs.make()[1].splits["report"][0]
    study = ew.Study(*jobs.make(report=[(inputs[0] * float("nan"), targets)]))
    study.run(12, jobs.BUDGET)
    with pytest.raises(PlanError, match="unpruned network failed on the report split"):
        study.plan(finalists=2)


def test_impossible_wishes_are_explained() -> None:
    study = ew.Study(*jobs.make())
    with pytest.raises(PlanError, match=r"call study\.run"):
        study.plan()
    with pytest.raises(BudgetError, match="Removing all that can be removed leaves macs"):
        study.run(10, ew.Budget(macs=0.001))
    with pytest.raises(
        ew.errors.EdgewiseError, match="No surrogate that can search is called 'Oracle'"
    ):
        study.run(20, jobs.BUDGET, surrogate="Oracle")


def test_progress_counts_up() -> None:
    told = []
    study = ew.Study(*jobs.make())
    study.run(24, jobs.BUDGET, progress=told.append)
    study.plan(finalists=3, progress=told.append)
    run = [p for p in told if p.total == 24]
    assert [p.done for p in run] == list(range(1, 25))
    assert {p.phase for p in told} >= {"leave-one-out", "sampling", "verifying", "reporting"}


def test_the_executor_gets_the_options_of_the_engine() -> None:
    graph, objective = jobs.make()
    wish, seen = ew.EngineOptions(memory="1MiB", chunk=2), []

    def make(*job: Any) -> Serial:
        seen.append(Serial(*job))
        return seen[0]

    studies = [ew.Study(graph, objective, executor=make, engine=wish), ew.Study(graph, objective)]
    losses = [[e.loss for e in study.evaluate([graph.empty])] for study in studies]
    assert seen[0].options == wish
    assert losses[0] == pytest.approx(losses[1])


def test_a_failure_is_tried_again_when_its_cause_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    monkeypatch.setenv("NO_SERVER", "1")

    def loss(outputs, targets):
        if "NO_SERVER" in os.environ:
            raise RuntimeError("no answer")
        return jobs.losses(outputs, targets)

    mask = jobs.make(loss)[0].mask([0])
    assert ew.Study(*jobs.make(loss), url).evaluate([mask])[0].status == "failed"
    monkeypatch.delenv("NO_SERVER")
    study = ew.Study(*jobs.make(loss), url)
    assert study.evaluate([mask])[0].ok
    assert [e.status for e in study.evaluations] == ["ok"]


def test_masks_that_do_not_belong_are_refused_and_leave_no_record() -> None:
    study = ew.Study(*jobs.make())
    graph = study.graph
    cut = graph.mask(["blocks.1.first.0..blocks.1.norm", "blocks.0.relu->blocks.1.add"])
    with pytest.raises(ew.errors.DisconnectedError):
        study.evaluate([graph.mask([0]), cut])
    with pytest.raises(ew.errors.MaskError):
        study.evaluate([ew.Mask(graph.empty.bits, "another")])
    assert study.evaluations == []


@pytest.mark.parametrize("name", ["verify", "report"])
def test_other_data_on_any_split_is_another_objective(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    graph, objective = jobs.make()
    ew.Study(graph, objective, url)
    x, y = objective.splits[name][0]
    with pytest.raises(StorageError, match="another objective"):
        ew.Study(*jobs.make(**{name: [(x[0] + 1, y)]}), url)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"evaluations": 0}, "evaluations must be a whole number of at least 1"),
        ({"evaluations": 2.5}, "evaluations must be"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_senseless_numbers_are_refused(wish: dict, message: str) -> None:
    with pytest.raises(ew.errors.EdgewiseError, match=message):
        ew.Study(*jobs.make()).run(**wish)


def test_few_finalists_of_many_see_the_whole_verify_split() -> None:
    x, y = jobs.make()[1].splits["verify"][0]
    repeated = [(x[0][:25].repeat(2, 1, 1, 1), y[:25].repeat(2))] * 8
    study = ew.Study(*jobs.make(verify=repeated))
    study.run(24, jobs.BUDGET)
    told: list[Progress] = []
    plan = study.plan(finalists=13, progress=told.append)
    trial, verify = (
        {e.mask: e for e in study.evaluations if e.split == split} for split in ("trial", "verify")
    )
    assert (len(trial), {e.samples for e in trial.values()}) == (13, {100})
    met = {mask: e for mask, e in verify.items() if e.origin == "finalist"}
    assert {e.samples for e in met.values()} == {400}
    assert set(met) == set(sorted(trial, key=lambda mask: trial[mask].loss)[:3])
    assert plan.bits == min(met, key=lambda mask: met[mask].loss)
    assert set(plan.measured) == {"search", "verify", "report"}
    assert [p.done for p in told] == list(range(1, told[0].total + 1))


def test_a_verify_split_of_few_batches_has_no_trial() -> None:
    study = ew.Study(*jobs.make())
    study.run(24, jobs.BUDGET)
    study.plan(finalists=5)
    assert {e.split for e in study.evaluations} == {"search", "verify", "report"}


def test_a_front_needs_no_new_evaluation_and_resumes_alike(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = ew.Study(*jobs.make(), url)
    study.run(30, jobs.BUDGET)
    before = study.evaluations
    points = study.pareto(time_limit=None, surrogate="GraphGP")  # to which every removal harms
    assert study.evaluations == before
    assert len(points) >= 3
    graph, losses = study.graph, {e.mask: e.loss for e in before}
    for point in points:
        assert point.cost == ew.cost(graph, point.mask)
        assert point.budget.allows(point.cost, ew.cost(graph))
        assert point.measured == losses.get(str(point.mask))
        assert point.deviation > 0
        assert point.solution.optimal
    macs, predicted = [p.cost.macs for p in points], [p.predicted for p in points]
    assert macs == sorted(macs, reverse=True)
    assert predicted == sorted(predicted)
    again = ew.Study(*jobs.make(), url).pareto(time_limit=None, surrogate="GraphGP")
    assert [(p.mask, p.predicted) for p in again] == [(p.mask, p.predicted) for p in points]


def test_a_front_wants_evaluations_and_budgets_that_can_be_met() -> None:
    study = ew.Study(*jobs.make())
    with pytest.raises(PlanError, match=r"study\.run"):
        study.pareto()
    study.run(20, jobs.BUDGET)
    with pytest.raises(BudgetError, match="same quantities"):
        study.pareto([ew.Budget(macs=0.5), ew.Budget(params=0.5)])
    with pytest.raises(BudgetError, match="The least that is reachable: macs"):
        study.pareto([ew.Budget(macs=1)])


def test_exact_intervals_cover_what_they_promise() -> None:
    """Of 95 % intervals at most one in twenty misses, whatever the proportion (to sampling)."""
    rng = np.random.default_rng(0)
    for p in (0.02, 0.5, 0.9):
        counts = rng.binomial(40, p, 400)
        missed = [not low <= p <= high for low, high in (exact(int(n), 40) for n in counts)]
        assert np.mean(missed) < 0.05 + 0.02
    assert exact(40, 40) == (pytest.approx(0.025 ** (1 / 40)), 1.0)


def test_frame_without_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EdgewiseError, match=r"pip install 'edgewise\[data\]'"):
        ew.Study(*jobs.make()).frame()
