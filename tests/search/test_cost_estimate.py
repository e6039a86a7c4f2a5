"""Costs of many masks at once, against the exact count."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edgewise as ew
from edgewise.search import Space, cost_estimate
from edgewise.search.cost_estimate import QUANTITIES, CostEstimate
from zoo import build

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from resnet_cifar import ResNet

KINDS = ("edge", "hidden", "heads", "channels")


def resnet() -> ew.Graph:
    graph = ew.trace(ResNet(2).eval(), (torch.randn(1, 3, 8, 8),), granularity=("edge", "hidden"))
    return graph.select(lambda unit: unit.kind != "edge" or unit.cost.macs > 0)


GRAPH = resnet()


def amounts(cost: ew.Cost) -> list[float]:
    return [getattr(cost, name) for name in QUANTITIES]


@settings(deadline=None)
@given(bits=st.lists(st.booleans(), min_size=len(GRAPH.units), max_size=len(GRAPH.units)))
def test_it_is_exact_for_branches_and_the_widths_inside_them(bits: list[bool]) -> None:
    mask = GRAPH.nest(GRAPH.mask(bits=bits))
    assert CostEstimate(GRAPH)([mask])[0] == pytest.approx(amounts(ew.cost(GRAPH, mask)))


@pytest.mark.parametrize("name", ["residual", "dense", "attention"])
def test_single_units_are_exact_in_any_network(name: str) -> None:
    model, args = build(name)
    graph = ew.trace(model, args, granularity=KINDS, slices=3)
    estimate = CostEstimate(graph)
    alone = [graph.mask([unit]) for unit in range(len(graph.units)) if unit not in graph.group_of]
    masks = [m for m in map(graph.nest, [graph.empty, *alone]) if ew.liveness(graph, m).connected]
    for mask, found in zip(masks, estimate(masks), strict=True):
        assert found == pytest.approx(amounts(ew.cost(graph, mask)))


def test_large_graphs_are_estimated_as_small_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """There what no mask changes is passed over."""
    rng, units = np.random.default_rng(0), len(GRAPH.units)
    near, *masks = (GRAPH.nest(GRAPH.mask(bits=bits)) for bits in rng.integers(0, 2, (9, units)))
    known, small = ew.cost(GRAPH, near), CostEstimate(GRAPH)
    monkeypatch.setattr(cost_estimate, "DENSE", 0)
    large = CostEstimate(GRAPH)
    assert type(large.logs) is not type(small.logs)
    np.testing.assert_allclose(large(masks, near, known), small(masks, near, known), rtol=1e-9)


def test_what_many_units_take_away_can_come_back() -> None:
    """Forty removed units each kill a part: of what they leave nothing is left to scale."""

    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(41)])
            self.head = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.layers(x))  # type: ignore[no-any-return]

    graph = ew.trace(Deep().eval(), torch.randn(2, 4), granularity="raw")
    deep = graph.mask([unit for unit, u in enumerate(graph.units) if u.name.startswith("layers")])
    found = CostEstimate(graph)([graph.empty], deep, ew.cost(graph, deep))
    assert np.isfinite(found).all()


def test_likely_masks_are_those_within_the_budget() -> None:
    space = Space(GRAPH, ew.Budget(macs=0.6, params=0.8))
    rng = np.random.default_rng(0)
    masks = [GRAPH.nest(GRAPH.mask(bits=rng.random(len(GRAPH.units)) < 0.4)) for _ in range(60)]
    near = masks[0]
    expected = [space.allows(mask) for mask in masks]
    assert space.likely(masks, near).tolist() == expected
    assert 0 < sum(expected) < len(masks)
    assert not space.likely([], near).size


@pytest.mark.parametrize("name", ["residual", "dense"])
def test_units_inside_others_are_judged_where_costs_add_up(name: str) -> None:
    model, args = build(name)
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    space = Space(graph, ew.Budget(macs=0.7, units=len(graph.units) - 3))
    rng = np.random.default_rng(0)
    drawn = [graph.mask(bits=rng.random(len(graph.units)) < 0.4) for _ in range(60)]
    masks = [mask for mask in drawn if space.connected(mask)]
    allowed, found = [space.allows(m) for m in masks], space.likely(masks, masks[0]).tolist()
    assert all(likely for likely, fits in zip(found, allowed, strict=True) if fits)
    assert any(allowed)
    assert all(found) == (name == "dense")  # what is concatenated adds up otherwise
