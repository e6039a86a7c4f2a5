"""A study in other people's tools, by the code of the page about them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import edgewise as ew
import jobs
from trackers import Trackers

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "trackers.md"


@pytest.fixture(scope="module")
def study() -> ew.Study:
    study = ew.Study(*jobs.make(recovery="none"))
    study.run(16, ew.Budget(macs=0.7))
    return study


def test_trackers_are_told_the_best_so_far(
    study: ew.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own code; TensorBoard and Optuna are real, the others are stand-ins."""
    trackers = Trackers()
    for name, module in trackers.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    page = Sybil([PythonCodeBlockParser()]).parse(PAGE)
    page.namespace.update(ew=ew, study=study)
    for example in page.examples():
        example.evaluate()
    events = EventAccumulator(str(tmp_path / "runs" / "edgewise"))
    events.Reload()
    assert {tag.partition("/")[2] for tag in events.Tags()["scalars"]} == {
        "best loss", "best accuracy"
    }  # fmt: skip
    best = [values["best loss"] for values in trackers.told["wandb"]]
    assert best == sorted(best, reverse=True)
    assert {"phase", "best loss", "accuracy"} == trackers.told["wandb"][0].keys()
    steps = [step for step, _ in trackers.told["mlflow"]]
    assert steps == sorted(steps)
    assert trackers.told["files"] == ["plan.json"]
    records = [e for e in study.evaluations if e.split == "search"]
    trials = page.namespace["found"].trials
    assert [trial.value for trial in trials] == [e.loss for e in records]
    for trial, record in zip(trials, records, strict=True):
        gone = [study.graph.units[u].name for u in study.graph.mask(bits=record.mask).removed]
        assert [name for name, removed in trial.params.items() if removed] == gone
