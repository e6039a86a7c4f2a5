"""Which units a job offers: by their names, and by the form of its result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.cli.job import units as offered
from edgewise.cli.job.config import Config, read_config
from edgewise.cli.job.sections import ResultSection, UnitsSection
from edgewise.cli.job.units import select_units, servable
from edgewise.errors import ConfigError, PlanError
from edgewise.graph.graph import Graph

JOB = '[model]\nsource = "own.py:Net"\n[data]\nsource = "own.py:rows"\n[result]\nform = "module"\n'


class Net(nn.Module):
    """Units that are modules, and two that are calls of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(x + self.first(x))
        return x.sin() + x.tanh()


@pytest.fixture
def graph() -> Graph:
    return ew.trace(Net(), (torch.randn(2, 4),), granularity=("edge", "layer"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "job.toml").write_text(JOB)
    return read_config(tmp_path / "job.toml")


def test_units_are_selected_by_globs(graph: Graph) -> None:
    names = [unit.name for unit in graph.units]
    assert {"first", "sin", "bypass:first"} <= set(names)
    chosen = select_units(graph, UnitsSection(only=("*first", "sin"), exclude=("bypass:*",)))
    assert [unit.name for unit in chosen.units] == ["first", "sin"]
    assert select_units(graph, UnitsSection()) == graph


def test_rules_hold_for_the_units_that_are_selected(graph: Graph) -> None:
    section = UnitsSection(exclude=("bypass:*",), keep=("first",), at_most={"edge": 0.3})
    chosen = select_units(graph, section)
    assert "first" not in {unit.name for unit in chosen.units}
    assert chosen.limits[0].weights == dict.fromkeys((unit.name for unit in chosen.units), 1)


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (UnitsSection(only=("frst",)), r"'frst' matches no unit\. Did you mean 'first'"),
        (UnitsSection(exclude=("nothing*",)), "matches no unit"),
        (UnitsSection(exclude=("*",)), "leave none of the"),
        (UnitsSection(keep=("frst",)), r"\[units\] No module is called 'frst'.* 'first'"),
    ],
)
def test_globs_that_leave_nothing_are_errors(graph: Graph, units: UnitsSection, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        select_units(graph, units)


def test_units_without_the_form_are_left_out_and_told(graph: Graph, config: Config) -> None:
    said: list[str] = []
    left = servable(config, graph, said.append)
    assert {u.name for u in graph.units} - {u.name for u in left.units} == {"sin", "tanh"}
    assert said[0].startswith(f"Looking which of {len(graph.units)} units the model's own class")
    assert f"Left out of the search: 2 of {len(graph.units)} units" in said[1]
    assert f"sin: {ew.without_module_form(graph)['sin']}" in said[1]
    for unit in left.units:
        assert isinstance(ew.prune(left, left.mask([unit.name]), form="module"), Net)


def test_what_was_found_is_kept_for_the_same_graph(
    graph: Graph, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = servable(config, graph, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(offered, "without_module_form", None)
        said: list[str] = []
        assert servable(config, graph, said.append) == first
    assert len(said) == 1
    other = graph.select(lambda unit: unit.name not in ("first", "sin"))
    assert "sin" not in {u.name for u in servable(config, other, said.append).units}
    kept = json.loads((config.directory / "module_form.json").read_text())
    assert kept["fingerprint"] == other.fingerprint
    assert list(kept["without"]) == ["tanh"]


def test_the_program_form_asks_nothing(graph: Graph, config: Config) -> None:
    assert servable(replace(config, result=ResultSection()), graph, pytest.fail) is graph
    assert not config.directory.exists()


def test_a_job_whose_units_all_lack_the_form_does_not_begin(graph: Graph, config: Config) -> None:
    calls = graph.select(lambda unit: unit.name in ("sin", "tanh"))
    with pytest.raises(ConfigError, match=r"serves none of the 2 units.*\n  sin: The code of Net"):
        servable(config, calls, lambda _: None)


def test_damage_is_noticed(graph: Graph, config: Config) -> None:
    config.directory.mkdir()
    (config.directory / "module_form.json").write_text("{}")
    with pytest.raises(PlanError, match=r"module_form\.json is damaged"):
        servable(config, graph, lambda _: None)
