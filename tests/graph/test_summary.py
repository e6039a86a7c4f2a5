"""A graph's blocks and units fit a screen."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.graph.units import with_units
from zoo import build


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(x)
        return x + self.mlp(x)


@pytest.fixture(scope="module")
def deep() -> ew.Graph:
    layers = nn.Sequential(*(Layer() for _ in range(30)))
    parts = {"embed": nn.Linear(3, 4), "layers": layers, "head": nn.Linear(4, 3)}
    return ew.trace(nn.Sequential(OrderedDict(parts)), torch.randn(2, 3))


def test_a_deep_language_model_fits_a_screen_and_lists_its_layers(deep: ew.Graph) -> None:
    lines = deep.summary().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("layers.")]
    assert [row.split()[0] for row in rows] == [f"layers.{n}" for n in range(30)]
    assert all("2 edge, 2 layer" in row and "116" in row for row in rows)


def test_every_block_and_unit_is_counted_once(deep: ew.Graph) -> None:
    vertices = [v for block in deep.blocks for v in block.vertices]
    assert sorted(vertices) == [*range(len(deep.vertices))]
    assert sum(block.macs for block in deep.blocks) == ew.cost(deep).macs
    assert sum(block.params for block in deep.blocks) == ew.cost(deep).params


def test_every_unit_is_listed_where_it_is_asked_for(deep: ew.Graph) -> None:
    text = deep.summary(lines=None)
    assert all(f"\n  {unit.label}  " in text for unit in deep.units)


def test_blocks_alike_share_a_row_where_there_are_too_many(deep: ew.Graph) -> None:
    lines = deep.summary(lines=20).splitlines()
    assert len(lines) < 20
    assert any(line.startswith("layers.0 … layers.29 (30)  60 edge, 60 layer") for line in lines)


def test_blocks_that_cost_unlike_share_one_where_that_is_not_enough() -> None:
    layers = [nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, 4)) for n in range(4, 40)]
    graph = ew.trace(nn.Sequential(*layers, nn.Linear(4, 4)), torch.randn(2, 4))
    assert "0 … 36 (37)" in graph.summary()
    assert "35 bypass" not in graph.summary()


def test_nested_blocks_are_told_apart_from_what_is_between() -> None:
    model, args = build("residual")
    graph = with_units(ew.trace(model, args, granularity="raw"), ["branch"])
    names = [(block.path, block.label) for block in graph.blocks]
    assert names[1:-1] == [(f"blocks.{n}", f"blocks.{n}") for n in range(3)]
    assert names[0] == ("", "stem.0 … stem.1")
