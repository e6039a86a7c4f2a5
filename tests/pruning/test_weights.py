"""Weights that share memory, repeat numbers or are no tensors, saved and loaded again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import edgewise as ew
from edgewise.errors import PlanError
from edgewise.pruning.weights import require_savable


class Shared(nn.Module):
    """Buffers that are views of each other or repeat one number, and tied weights."""

    def __init__(self):
        super().__init__()
        table = torch.arange(32.0).reshape(4, 8)
        self.register_buffer("table", table)
        self.register_buffer("turned", table.t())
        self.register_buffer("row", table[1])
        self.register_buffer("every_second", torch.arange(16.0)[::2])
        self.register_buffer("start", torch.arange(99.0)[:8])
        self.register_buffer("windows", torch.arange(9.0).unfold(0, 8, 1))
        self.register_buffer("repeated", torch.arange(8.0).expand(4, 8))
        self.register_buffer("nothing", torch.zeros(0, 8))
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        y = x + self.first(x) + self.second(torch.relu(x))
        parts = (self.table[0], self.turned[:, 1], self.row, self.every_second, self.start)
        for part in (*parts, self.windows[1], self.repeated[2], self.nothing.sum(0)):
            y = y + part
        return y


@pytest.fixture(scope="module")
def plan() -> ew.Plan:
    """One that removes nothing."""
    graph = ew.trace(Shared(), torch.randn(2, 8))
    x = torch.randn(4, 8)
    study = ew.Study(graph, ew.Objective([(x, x)], loss=nn.functional.mse_loss))
    study.run(2, budget=ew.Budget(units=0.9))
    found = study.plan(finalists=1)
    return replace(found, bits="0" * len(graph.units), removed=(), edits={})


@pytest.fixture
def small(plan: ew.Plan) -> nn.Module:
    """With other weights and buffers than a new network's."""
    torch.manual_seed(0)
    model = Shared()
    with torch.no_grad():
        model.table += 1  # its views, too
        model.repeated = (torch.arange(8.0) * 3).expand(4, 8)
        model.first.weight *= 2  # the other layer's, too
    return ew.prune(ew.trace(model, torch.randn(2, 8)), plan).eval()


def test_a_file_holds_every_tensor_once(small: nn.Module, tmp_path: Path) -> None:
    path, own = ew.save(small, tmp_path / "small.safetensors"), small.state_dict()
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"second.weight": "first.weight"}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found.keys() == own.keys() - {"second.weight"}
    assert all(torch.equal(found[name], own[name]) for name in found)


def test_it_is_loaded_into_views_repeated_numbers_and_tied_weights(
    small: nn.Module, plan: ew.Plan, tmp_path: Path
) -> None:
    again = ew.load(Shared, plan, ew.save(small, tmp_path / "small.safetensors"))
    own = again.state_dict()
    assert own.keys() == small.state_dict().keys()
    assert all(torch.equal(own[name], value) for name, value in small.state_dict().items())
    assert again.second.weight is again.first.weight
    x = torch.randn(3, 8)
    assert torch.equal(again(x), small(x))


def test_a_tensor_that_is_tied_to_none_of_the_file_is_missing(
    small: nn.Module, plan: ew.Plan, tmp_path: Path
) -> None:
    path = ew.save(small, tmp_path / "small.safetensors")
    save_file(load_file(path), path, metadata={"second.weight": "elsewhere"})
    with pytest.raises(PlanError, match=r"not those of the plan.*(\n.*)*second\.weight"):
        ew.load(Shared, plan, path)


class Odd(nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass


class Holds(nn.Module):
    def __init__(self, buffer=None, layer=nn.Linear):
        super().__init__()
        self.layer = layer(4, 4)
        self.register_buffer("kept", buffer)

    def forward(self, x):
        return x + self.layer(x)


UNSAVABLE = {
    "dtype": (Holds(torch.ones(2, dtype=torch.complex128)), "'kept' is of torch.complex128"),
    "sparse": (Holds(torch.ones(2).to_sparse()), "'kept' is sparse"),
    "meta": (Holds(torch.ones(2, device="meta")), "'kept' is sparse, quantized or without values"),
    "extra": (Holds(layer=Odd), r"'layer\._extra_state' is a dict, and no tensor"),
}


@pytest.mark.parametrize(("model", "words"), UNSAVABLE.values(), ids=UNSAVABLE.keys())
def test_what_cannot_be_saved_is_named(model: nn.Module, words: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=words):
        require_savable(model)
    with pytest.raises(PlanError, match=words):
        ew.save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_search_begins_with_that(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(2, 4)
    objective = ew.Objective([(x, x)], loss=nn.functional.mse_loss)
    with caplog.at_level("WARNING", logger="edgewise"):
        ew.Study(ew.trace(Holds(), x), objective)
    assert not caplog.messages
    with caplog.at_level("WARNING", logger="edgewise"):
        ew.Study(ew.trace(Holds(layer=Odd), x), objective)
    assert "`ew.save` will refuse the pruned network" in caplog.text
