"""From a config to a graph, an objective and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edgewise as ew
from edgewise.cli.job.config import Config, read_config
from edgewise.cli.job.job import read_objective, require_search, trace_job
from edgewise.cli.running import run_job
from edgewise.cli.screen import Screen
from edgewise.errors import ConfigError, PlanError

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.first(x) + self.second(x)


def rows():
    return [(torch.full((4,), float(i)), i % 4) for i in range(12)]
"""
JOB = """
[model]
source = "own.py:Net"
[data]
source = "own.py:rows"
search = "0:4"
verify = "4:8"
report = "8:"
batch = 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "own.py").write_text(CODE)
    (tmp_path / "job.toml").write_text(JOB)
    return read_config(tmp_path / "job.toml")


def test_the_example_is_the_first_row_unless_a_shape_is_given(config: Config) -> None:
    assert trace_job(config).program.args[0].tolist() == [[0.0] * 4]
    shaped = replace(config, model=replace(config.model, input=(4,)))
    first, second = (trace_job(shaped).program.args[0] for _ in range(2))
    assert first.shape == (1, 4)
    assert torch.equal(first, second)


def test_the_objective_has_all_three_splits(config: Config) -> None:
    objective = read_objective(config, trace_job(config))
    assert [objective.samples(split) for split in ("search", "verify", "report")] == [4, 4, 4]
    assert list(objective.metrics) == ["accuracy"]


def test_data_of_another_shape_than_the_input_is_an_error(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"input is \[5\], but the examples .* shape \[4\]"):
        read_objective(replace(config, model=replace(config.model, input=(5,))), trace_job(config))


def test_a_job_without_a_budget_says_how_to_give_one(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"no \[budget\]"):
        require_search(config)


def test_a_misspelt_function_is_found_before_anything_takes_time(config: Config) -> None:
    ready = replace(config, budget=ew.Budget(macs=0.7))
    require_search(ready)
    with pytest.raises(ConfigError, match="nosuch"):
        require_search(replace(ready, objective=replace(ready.objective, loss="nosuch.py:loss")))


def test_weights_that_cannot_be_saved_are_told_before_the_search(tmp_path: Path) -> None:
    state = "self.register_buffer('kept', torch.ones(4, dtype=torch.complex128))"
    begin = "super().__init__()\n"
    code = CODE.replace(begin, f"{begin}        {state}\n")
    (tmp_path / "own.py").write_text(code.replace("return x", "return self.kept.real.float() + x"))
    (tmp_path / "job.toml").write_text(f"{JOB}[budget]\nmacs = 0.7\n")
    config = read_config(tmp_path / "job.toml")
    with pytest.raises(PlanError, match="'kept' is of torch"):
        run_job(config, Screen(quiet=True))
    assert not config.directory.exists()


PART = """

class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x, sign=1):
        y = self.net(x)
        return y if y.sum() > 0 else sign * y


def run(model, batch):
    return model(batch[0], sign=-1)
"""


def test_a_part_is_searched_while_the_whole_model_is_judged(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CODE + PART)
    job = JOB.replace('own.py:Net"', 'own.py:Deciding"\npart = "net"')
    extra = '[objective]\nrun = "own.py:run"\n[budget]\nmacs = 0.6\n[search]\nevaluations = 4\n'
    (tmp_path / "job.toml").write_text(job + extra)
    config = read_config(tmp_path / "job.toml")
    graph = trace_job(config)
    assert graph.program.whole.paths == ("net",)
    run_job(config, Screen(quiet=True))
    plan = ew.Plan.load(config.directory / "plan.json")
    assert plan.provenance["model"] == "Deciding"
    small = ew.load(
        lambda: type(graph.program.whole.model)(),
        plan,
        config.directory / "pruned.safetensors",
    )
    assert type(small).__name__ == "Deciding"
    objective = read_objective(config, graph)
    loss = objective.score(small, "report").loss
    assert loss == pytest.approx(plan.measured["report"].loss, rel=1e-4)
