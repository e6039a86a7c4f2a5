"""A study in other people's tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import edgewise as ew
import jobs
from edgewise.errors import EdgewiseError
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
    """The page's own code; TensorBoard's is the real one, the others are stand-ins."""
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


def test_every_mask_is_a_trial_once(study: ew.Study, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    for _ in range(2):
        found = ew.hooks.optuna_study(study, url)
    records = [e for e in study.evaluations if e.split == "search"]
    assert [t.value for t in found.trials] == [e.loss for e in records]
    for trial, record in zip(found.trials, records, strict=True):
        gone = [study.graph.units[u].name for u in study.graph.mask(bits=record.mask).removed]
        assert [name for name, removed in trial.params.items() if removed] == gone
        assert trial.user_attrs["origin"] == record.origin
    assert found.best_value == min(e.loss for e in records)


def test_without_optuna_it_says_how_to_get_it(
    study: ew.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EdgewiseError, match="pip install optuna"):
        ew.hooks.optuna_study(study)


def test_vertices_have_the_loss_of_what_removes_them(study: ew.Study, tmp_path: Path) -> None:
    bypassed = next(u for u, unit in enumerate(study.graph.units) if unit.kind == "layer")
    (alone,) = study.evaluate([study.graph.mask([bypassed])])
    graph_file, losses_file = ew.hooks.model_explorer(study, tmp_path)
    (network,) = json.loads(graph_file.read_text())["graphs"]
    (data,) = json.loads(losses_file.read_text()).values()
    assert list(json.loads(losses_file.read_text())) == [network["id"]]
    nodes = {node["id"]: node for node in network["nodes"]}
    assert len(nodes) == len(study.graph.vertices)
    for node in nodes.values():
        assert all(edge["sourceNodeId"] in nodes for edge in node["incomingEdges"])
    assert data["results"].keys() < nodes.keys()
    vertex = study.graph.units[bypassed].removal.vertices[0]
    assert data["results"][str(vertex)] == {"value": alone.loss}
    branch = nodes[str(vertex)]
    assert f"{branch['namespace']}/{branch['label']}".replace("/", ".") == (
        study.graph.vertices[vertex].name
    )
