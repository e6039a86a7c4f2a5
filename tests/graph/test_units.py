"""Which units a graph offers: branches that save something, or every connection."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import edgewise as ew
from edgewise.errors import NoUnitsError
from edgewise.graph.cost import cost_of
from edgewise.graph.liveness import alive
from edgewise.graph.removal import Removal
from edgewise.graph.units import LEAST, recorded_units, with_units
from edgewise.testing.laws import random_mask
from language_model import IDS, LanguageModel
from zoo import ZOO, build


@pytest.fixture(scope="module")
def decoder() -> ew.Graph:
    return ew.trace(LanguageModel(2).eval(), IDS, granularity="raw")


def labels(graph: ew.Graph) -> list[str]:
    return [unit.label for unit in graph.units]


def test_a_language_model_offers_its_branches_the_whole_before_their_parts(
    decoder: ew.Graph,
) -> None:
    few, every = with_units(decoder, ["branch", "layer"]), with_units(decoder, ["edge"])
    assert labels(few) == [
        f"layers.{n} {part}"
        for n in range(2)
        for part in ("attention", "mlp", "mlp gate_proj", "mlp up_proj")
    ]
    assert len(every.units) == 33
    layers = [len(with_units(decoder, kinds).units) for kinds in (["edge", "layer"], ["layer"])]
    assert layers == [33 + 8, 8]  # the projections of attentions are asked for by name
    dropped = {unit.name: unit for unit in every.units}.keys() - {u.name for u in few.units}
    assert all(every.units[every.unit_index[name]].cost.macs == 0 for name in dropped)


@given(st.sampled_from(sorted(ZOO)))
def test_branches_are_connections_of_the_same_names(name: str) -> None:
    model, args = build(name)
    raw = ew.trace(model, args, granularity="raw")
    every, few = with_units(raw, ["edge"]), with_units(raw, ["branch"])
    known = {unit.name: unit for unit in every.units}
    assert all(known[unit.name] == unit for unit in few.units)
    whole = ew.cost(raw)
    for unit in {*every.unit_index} - {*few.unit_index}:
        saved = every.units[every.unit_index[unit]].cost
        assert saved.params <= LEAST * whole.params
        assert saved.macs <= LEAST * whole.macs
    again = recorded_units(raw, few.granularity, [unit.name for unit in few.units], [])
    assert again.fingerprint == few.fingerprint


class Pools(nn.Module):
    """A branch without parameters, which takes time, and a scale, which takes next to none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.pool(x)
        return x + x.sin()


@given(st.sampled_from(sorted(ZOO)), st.randoms(use_true_random=False))
def test_branches_reach_every_cost_that_connections_reach(name: str, rng: random.Random) -> None:
    model, args = build(name)
    every = ew.trace(model, args, granularity="edge")
    removal = every.removal(random_mask(every, rng))
    cost = cost_of(every, alive(every, removal))

    def more(unit: ew.Unit) -> ew.Cost:
        return cost_of(every, alive(every, Removal.union((removal, unit.removal))))

    branches = with_units(every, ["branch"]).units
    implied = [
        unit.removal for unit in branches if replace(more(unit), units=0) == replace(cost, units=0)
    ]
    left = cost_of(every, alive(every, Removal.union(implied)))
    slack = LEAST * len(every.units)
    assert left.macs - cost.macs <= slack * ew.cost(every).macs
    assert left.params - cost.params <= slack * ew.cost(every).params


def test_a_branch_that_takes_time_alone_is_offered() -> None:
    graph = ew.trace(Pools(), torch.randn(2, 3, 5, 5), granularity="branch")
    assert [unit.name for unit in graph.units] == ["pool"]


def test_a_network_without_parameters_is_judged_by_its_activations() -> None:
    class Bare(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() + x.cos()

    assert len(ew.trace(Bare(), torch.randn(2, 6), granularity="branch").units) == 2


def test_what_saves_nothing_is_asked_for() -> None:
    class Slight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layer(x)
            return x.sin() + x.cos()

    with pytest.raises(NoUnitsError, match=r'next to nothing.*granularity=\("edge", "layer"\)'):
        ew.trace(Slight(), torch.randn(2, 4))
    assert len(ew.trace(Slight(), torch.randn(2, 4), granularity="edge").units) == 2
