"""In which order the channels of a job's widths go."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import edgewise as ew
from edgewise.cli.job import importance as asked
from edgewise.cli.job.config import Config, read_config
from edgewise.cli.job.datasets import load_batches
from edgewise.cli.job.importance import importance_of, kind_of
from edgewise.cli.job.job import trace_job
from edgewise.cli.job.sections import ModelSection
from edgewise.errors import EdgewiseError, PlanError
from edgewise.graph.graph import Graph

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def rows():
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(4, generator=draw), i % 4) for i in range(40)]


def itself(outputs, targets):
    return (outputs - outputs.detach()).square().sum(1)


def flat(outputs, targets):
    return (outputs.argmax(1) != targets).float()
"""
JOB = """
[model]
source = "own.py:Net"
[data]
source = "own.py:rows"
search = "0:12"
verify = "12:16"
report = "16:20"
[units]
granularity = ["hidden"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "own.py").write_text(CODE)
    (tmp_path / "job.toml").write_text(JOB)
    return read_config(tmp_path / "job.toml")


def order(graph: Graph) -> list[int]:
    """The channels in the order in which they go."""
    gone = [graph.units[u].removal.channels for u in graph.nested[0]]
    return [int(c) for cut in gone for c in sorted(next(iter(cut.values())))]


def traced(config: Config, importance: Any) -> list[int]:
    x = load_batches(config.data, config.data.search)[0][0][:1]
    model = trace_job(replace(config, units=replace(config.units, importance="l2"))).program.model
    return order(ew.trace(model, (x,), granularity="hidden", importance=importance))


def test_the_default_is_taylor_on_what_the_search_sees(config: Config) -> None:
    batches = load_batches(config.data, config.data.search)
    wanted = traced(config, ew.importance.taylor(batches, F.cross_entropy))
    assert order(trace_job(config)) == wanted
    assert wanted != traced(config, ew.importance.l2)


def test_calibration_data_come_first_where_there_are_some(config: Config) -> None:
    calibration = '[calibration]\nrows = "20:40"\n[objective]\nrecovery = "batchnorm"\n'
    config.path.write_text(JOB + calibration)
    other = read_config(config.path)
    batches = load_batches(other.data, other.calibration.rows)  # type: ignore[union-attr]
    wanted = traced(config, ew.importance.taylor(batches, F.cross_entropy))
    assert order(trace_job(other)) == wanted != order(trace_job(config))


def test_what_has_no_outputs_at_hand_is_ordered_by_weights(config: Config) -> None:
    parts = replace(config, model=ModelSection("own.py:Net", part=("a", "b")))
    run = replace(config, objective=replace(config.objective, run="own.py:run"))
    asked_for = replace(run, units=replace(config.units, importance="activation"))
    found = [kind_of(some) for some in (config, parts, run, asked_for)]
    assert found == ["taylor", "l2", "l2", "activation"]
    assert importance_of(parts, torch.nn.Identity(), pytest.fail) is ew.importance.l2


def test_a_loss_at_its_least_leaves_the_choice_to_activations(config: Config) -> None:
    said: list[str] = []
    config.path.write_text(JOB + '[objective]\nloss = "own.py:itself"\n')
    found = order(trace_job(read_config(config.path), said.append))
    assert "at its least" in said[1]
    batches = load_batches(config.data, config.data.search)
    assert found == traced(config, ew.importance.activation(batches))
    config.path.write_text(config.path.read_text() + '[output]\ndirectory = "other"\n')
    explicit = read_config(config.path)
    explicit = replace(explicit, units=replace(explicit.units, importance="taylor"))
    trace_job(explicit, said.append)
    assert len(said) == 3


def test_a_loss_without_a_gradient_says_what_to_write(config: Config) -> None:
    config.path.write_text(JOB + '[objective]\nloss = "own.py:flat"\n')
    flat = read_config(config.path)
    with pytest.raises(EdgewiseError, match=r'no gradient.* importance = "activation"'):
        trace_job(flat)
    by_size = replace(flat, units=replace(flat.units, importance="activation"))
    batches = load_batches(config.data, config.data.search)
    assert order(trace_job(by_size)) == traced(config, ew.importance.activation(batches))


def test_scores_are_kept_for_the_same_weights_and_data(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = trace_job(config, said.append)
    assert said == ["Looking which channels matter least (taylor)"]
    with monkeypatch.context() as patch:
        patch.setattr(asked.importance, "taylor", None)
        assert trace_job(config, pytest.fail) == first
    weights = {k: -v for k, v in first.program.model.state_dict().items()}
    torch.save(weights, config.path.parent / "own.pt")
    config.path.write_text(JOB.replace("[data]", 'weights = "own.pt"\n[data]'))
    trace_job(read_config(config.path), said.append)
    config.path.write_text(JOB.replace("0:12", "0:8"))
    trace_job(read_config(config.path), said.append)
    config.path.write_text(JOB.replace("0:12", "0:8").replace("[units]", "length = 4\n[units]"))
    trace_job(read_config(config.path), said.append)
    assert len(said) == 4
    config.path.write_text(config.path.read_text().replace("16:20", "16:24"))
    trace_job(read_config(config.path), pytest.fail)  # rows that it does not look at
    (config.directory / "importance.json").write_text(json.dumps({"of": ""}))
    with pytest.raises(PlanError, match=r"importance\.json is damaged"):
        trace_job(config)
