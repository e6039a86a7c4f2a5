"""Every surrogate searches: those of the package by name, and any regressor of the user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import edgewise as ew
import jobs
from edgewise.errors import EdgewiseError, PlanError
from edgewise.evaluation.records import Progress
from edgewise.study.bench import bench
from edgewise.surrogates.searcher import NAMES, OWN, recalled, searcher

EVALUATIONS = 29
FOREST = RandomForestRegressor(3, random_state=0)
OWN_ONES = {
    "forest": FOREST,
    "a class": LinearRegression,
    "a function": lambda: make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge()),
}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search is the same with a deviation that is less well known."""
    monkeypatch.setitem(ew.surrogates.Bootstrap.__init__.__kwdefaults__, "resamples", 4)


def planned(surrogate: Any, storage: str | None = None) -> tuple[Any, list[Any]]:
    """The plan of a study, and what it measured, in its order."""
    study = ew.Study(*jobs.make(), storage)
    study.run(EVALUATIONS, jobs.BUDGET, seed=1, surrogate=surrogate)
    plan = study.plan(finalists=4)
    return plan, [(e.split, e.mask, e.loss, e.predicted) for e in study.evaluations]


@pytest.mark.parametrize("wanted", [*NAMES, *OWN_ONES])
def test_a_search_ends_in_a_plan_within_the_budget(wanted: str) -> None:
    surrogate = OWN_ONES.get(wanted, wanted)
    plan, measured = planned(surrogate)
    assert plan.after.macs <= 0.7 * plan.before.macs
    assert plan.predicted["deviation"] > 0
    assert any(predicted is not None for *_, predicted in measured)
    if wanted != "auto":
        assert plan.surrogate == searcher(surrogate).name


class Interrupted(Exception):
    pass


def interrupt(progress: Progress) -> None:
    if progress.done == EVALUATIONS - 2:  # among the proposals
        raise Interrupted


def test_interrupted_or_not_the_same_seed_gives_the_same_plan(tmp_path: Path) -> None:
    whole, measured = planned(FOREST)
    url = f"sqlite:///{tmp_path / 'parts.db'}"
    with pytest.raises(Interrupted):
        ew.Study(*jobs.make(), url).run(
            EVALUATIONS, jobs.BUDGET, seed=1, surrogate=FOREST, progress=interrupt
        )
    again, found = planned(FOREST, url)
    assert found == measured
    assert again.to_dict() == whole.to_dict()


def test_a_plan_elsewhere_says_which_surrogate_to_give(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = ew.Study(*jobs.make(), url)
    first.run(EVALUATIONS, jobs.BUDGET, surrogate=FOREST)
    bits = first.plan(finalists=4).bits
    later = ew.Study(*jobs.make(), url)
    for ask in (later.plan, later.pareto):
        with pytest.raises(PlanError, match=r"RandomForestRegressor#\w{8}, .*surrogate=RandomFor"):
            ask()
    assert later.insight().front == []
    assert later.plan(finalists=4, surrogate=FOREST).bits == bits
    assert later.plan(finalists=4).bits == bits  # known from now on
    assert ew.Study(*jobs.make(), url).plan(finalists=4, surrogate="Linear").surrogate == "Linear"


def test_fronts_of_surrogates_that_no_solver_takes() -> None:
    study = ew.Study(*jobs.make())
    study.run(EVALUATIONS, jobs.BUDGET, surrogate=LinearRegression())
    budgets = [ew.Budget(macs=share) for share in (0.9, 0.7, 0.5)]
    points = study.pareto(budgets)
    assert points
    for point in points:
        assert point.solution is None
        assert point.cost.macs <= point.budget.macs * ew.cost(study.graph).macs
        assert point.deviation > 0
    assert study.insight().front
    assert all(p.solution is not None for p in study.pareto(budgets, surrogate="Linear"))


def test_a_bench_takes_a_surrogate() -> None:
    with ew.Study(*jobs.make()) as study:
        (row,) = bench(study, jobs.BUDGET, ["edgewise"], evaluations=EVALUATIONS, surrogate=FOREST)
        assert row.evaluations == EVALUATIONS
        with pytest.raises(EdgewiseError, match="No surrogate that can search is called 'fcn'"):
            list(bench(study, jobs.BUDGET, ["edgewise"], surrogate="fcn"))


class Mute(BaseEstimator):
    def fit(self, X: Any, y: Any) -> Any:
        return self


class Uncloneable:
    def fit(self, X: Any, y: Any) -> Any:
        return self

    def predict(self, X: Any) -> Any:
        return X[:, 0]


class Unsure(RegressorMixin, BaseEstimator):
    """Knows nothing once there are enough masks."""

    def fit(self, X: Any, y: Any) -> Any:
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), np.nan)


def unmade() -> Any:
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("forest", "No surrogate that can search is called 'forest'.*any scikit-learn regressor"),
        ("Pathsum", "Did you mean 'PathSum'"),
        (Mute(), r"Mute has no predict\(\)"),
        (7, r"int has no fit\(\)"),
        (Uncloneable(), r"Uncloneable cannot be cloned.*get_params\(\)"),
        (unmade, "unmade cannot be made: no such thing"),
    ],
)
def test_what_cannot_search_is_refused_before_anything_is_measured(
    wanted: Any, message: str
) -> None:
    study = ew.Study(*jobs.make())
    with pytest.raises(EdgewiseError, match=message):
        study.run(EVALUATIONS, jobs.BUDGET, surrogate=wanted)
    assert study.evaluations == []


def test_what_was_measured_before_a_surrogate_failed_is_kept() -> None:
    study = ew.Study(*jobs.make())
    with pytest.raises(EdgewiseError, match="Unsure predicts values that are not finite"):
        study.run(EVALUATIONS, jobs.BUDGET, surrogate=Unsure())
    known = study.evaluations
    assert len(known) > len(study.graph.units)
    study.run(EVALUATIONS, jobs.BUDGET, surrogate="Linear")
    assert study.evaluations[: len(known)] == known


def name_of(model: Any) -> str:
    return searcher(model).name


def test_names_tell_classes_and_settings_apart_and_nothing_else(tmp_path: Path) -> None:
    graph, _ = jobs.make()
    pipe = make_pipeline(StandardScaler(), Ridge(0.1))
    models = [
        FOREST, RandomForestRegressor(4, random_state=0), RandomForestRegressor(3),
        RandomForestRegressor(3, random_state=np.random.RandomState(0)),
        RandomForestRegressor(3, random_state=np.random.RandomState(1)),
        Ridge(), Ridge(2.0), pipe, make_pipeline(StandardScaler(), Ridge(0.2)),
        ew.surrogates.PathSum(graph), ew.surrogates.PathSum(graph, saturate=True), Unsure(),
    ]  # fmt: skip
    names = [name_of(model) for model in models]
    assert len(set(names)) == len(names)
    assert all(OWN in name for name in names)
    assert name_of(RandomForestRegressor(n_estimators=3, random_state=0)) == names[0]
    assert name_of(FOREST.__sklearn_clone__().fit(np.eye(3), np.arange(3.0))) == names[0]
    assert name_of(pipe.fit(np.eye(3), np.arange(3.0))) == name_of(pipe)
    assert name_of(Ridge) == name_of(Ridge())
    code = (
        "from sklearn.ensemble import RandomForestRegressor as F\n"
        "from edgewise.surrogates.searcher import searcher\n"
        "print(searcher(F(3, random_state=0)).name)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == names[0]


def test_a_surrogate_with_an_uncertainty_is_taken_as_it_is() -> None:
    graph, _ = jobs.make()
    own = ew.surrogates.Bootstrap(LinearRegression(), resamples=3)
    for model in (ew.surrogates.GraphGP(graph), own):
        found = searcher(model)
        made = found.candidates[found.name](graph, "identity")
        assert type(made) is type(model)
        assert made.link == "identity"
        assert made is not model
    wrapped = searcher(ew.surrogates.FCN(hidden=(4,)))
    made = wrapped.candidates[wrapped.name](graph, "identity")
    assert isinstance(made, ew.surrogates.Bootstrap)
    assert made.model.hidden == (4,)


def test_names_of_runs_are_recalled() -> None:
    assert recalled("FCN") == searcher("FCN")
    with pytest.raises(PlanError, match="not stored"):
        recalled("FCN#0123abcd")
