"""A search whose evaluations see some of the examples: resumed, counted, and where it may not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgewise as ew
import jobs
from edgewise.search.known import ALIKE
from edgewise.study import measuring
from edgewise.study.statistics import examples_seen


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "WORTH", 0.0)


def test_a_search_in_parts_resumes_to_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It spends examples, and what it chooses has seen all of them."""
    url, add, left = f"sqlite:///{tmp_path / 's.db'}", measuring.Storage.add, [9, 11]

    def adding(self: measuring.Storage, *args: object) -> None:
        if self.url == url and left:
            left[0] -= 1
            if not left[0]:
                left.pop(0)
                raise KeyboardInterrupt
        add(self, *args)

    monkeypatch.setattr(measuring.Storage, "add", adding)
    once, plans = ew.Study(*jobs.make(), name="job"), []
    once.run(examples=640, budget=jobs.BUDGET, seed=3)
    while len(plans) < 1:
        try:
            study = ew.Study(*jobs.make(), url, "job")
            study.run(20, jobs.BUDGET, seed=3)
            plans.append(study.plan(finalists=5))
        except KeyboardInterrupt:
            continue
    assert not left
    assert plans[0].to_dict() == once.plan(finalists=5).to_dict()
    search = [e for e in study.evaluations if e.split.startswith("search")]
    sizes = {e.split for e in search}
    assert len(sizes) == 5
    assert 19 * 32 < examples_seen(search) <= 20 * 32
    assert len({e.mask for e in search}) > 20
    assert plans[0].bits in {e.mask for e in study.evaluations if e.split == "verify"}
    assert plans[0].provenance["examples"] == examples_seen(search)
    told: list[ew.Progress] = []
    again = ew.Study(*jobs.make(), url, "job")
    again.run(20, jobs.BUDGET, seed=3, progress=told.append)
    assert (told[-1].done, told[-1].total) in ((19, 20), (20, 20))
    assert again.evaluations == study.evaluations
    whole = min(e.loss for e in search if e.split == "search" and e.mask != "0" * 12)
    assert whole <= told[-1].best


@pytest.mark.parametrize("what", ["mean", "batch", "few"])
def test_a_search_sees_everything_where_parts_are_not_alike(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A loss of one number a batch, one that looks at its whole batch, fewer examples than lots."""

    def loss(outputs, targets):
        each = jobs.losses(outputs, targets)
        return {"mean": each.mean(), "batch": each / each.mean(), "few": each}[what]

    graph, objective = jobs.make(loss)
    if what == "few":
        [(x, y), *_] = objective.splits["search"]
        objective = ew.Objective([(x[0][:3], y[:3])], loss=loss)
    study = ew.Study(graph, objective)
    with caplog.at_level("INFO", "edgewise"):
        study.run(16, jobs.BUDGET)
    sizes = {e.split for e in study.evaluations if e.mask != str(graph.empty)}
    assert sizes == {"search"}
    assert ("one number a batch" in caplog.text) == (what == "mean")


def test_a_study_begun_without_sizes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    study = ew.Study(*jobs.make())
    monkeypatch.setattr(measuring, "WORTH", np.inf)
    study.run(16, jobs.BUDGET)
    before = study.evaluations
    monkeypatch.setattr(measuring, "WORTH", 0.0)
    study.run(20, jobs.BUDGET)
    assert study.evaluations[:16] == before
    assert examples_seen(study.evaluations) > 16 * 32
    assert len({(e.mask, e.split) for e in study.evaluations}) == len(study.evaluations)


def test_lots_may_differ_by_the_rounding_of_their_precision() -> None:
    graph, objective = jobs.make()
    space = ew.Study(graph, objective).space(jobs.BUDGET)
    assert measuring.offered(space, objective)["alike"] == ALIKE
    half = replace(objective, precision="bfloat16")
    assert measuring.offered(space, half)["alike"] == measuring.HALF > ALIKE


def test_interactions_and_fronts_learn_from_parts() -> None:
    """What saw a part tells of units as what saw everything does, but it was not measured."""
    study = ew.Study(*jobs.make(), name="job")
    study.run(12, jobs.BUDGET, seed=3)
    parts = {e.mask for e in study.evaluations if ":" in e.split}
    parts -= {e.mask for e in study.evaluations if e.split == "search"}
    assert len(parts) > 8
    known = study._knowledge()
    learnt = {"".join(map(str, map(int, row))) for row in known.process().posterior_.masks}
    assert parts & learnt
    effects = [abs(pair.effect) for pair in study.interactions().pairs]
    assert max(effects) > 0.0
    measured = {str(point.mask) for point in study.pareto() if point.measured is not None}
    assert not measured & parts
