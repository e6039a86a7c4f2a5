"""Interactions: second differences of what a surrogate predicts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgewise.graph.graph import Graph
from edgewise.graph.liveness import liveness
from edgewise.surrogates import GraphGP
from edgewise.surrogates.interactions import Pair, interactions
from edgewise.tracing.trace import trace


class Sum(nn.Module):
    """Four branches beside an identity, any of which can go."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = x + torch.relu(part(x))
        return x


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(Sum(), torch.randn(1, 3), granularity=("edge",))


def quadratic(graph: Graph, spread: float) -> Any:
    """A surrogate that knows one pair, with independent noise for every mask."""
    branches = [i for i, u in enumerate(graph.units) if "parts" in u.name][:2]

    def predict(X: Any) -> Any:
        return X.sum(1) + 0.7 * X[:, branches].prod(1)

    def sample(X: Any, n: int, random_state: int) -> Any:
        noise = np.random.default_rng(random_state).normal(size=(n, len(X)))
        return predict(X) + spread * noise

    return branches, SimpleNamespace(
        predict_link=predict, sample=sample, link="log", posterior_=None
    )


def test_only_the_pair_that_interacts_has_an_effect(graph: Graph) -> None:
    branches, model = quadratic(graph, 0.01)
    found = interactions(model, graph, graph.empty)
    assert len(found.pairs) >= 6
    for pair in found.pairs:
        expected = 0.7 if {pair.first, pair.second} == set(branches) else 0.0
        assert pair.effect == pytest.approx(expected, abs=1e-9)
        assert pair.deviation == pytest.approx(0.02, rel=0.25)  # four draws of deviation .01


def test_around_another_mask_the_pair_is_put_back(graph: Graph) -> None:
    branches, model = quadratic(graph, 0.01)
    for base in (graph.mask(branches), graph.mask(branches[:1])):
        found = interactions(model, graph, base, units=branches)
        assert [pair.effect for pair in found.pairs] == [pytest.approx(0.7)]


def test_what_is_less_than_its_deviation_is_not_known() -> None:
    assert not Pair(0, 1, 0.1, 0.2).known
    assert Pair(0, 1, -0.3, 0.2).known


def test_pairs_that_cannot_go_together_are_left_out(graph: Graph) -> None:
    _, model = quadratic(graph, 0.01)
    both = {(p.first, p.second) for p in interactions(model, graph, graph.empty).pairs}
    skip = [i for i, u in enumerate(graph.units) if "parts" not in u.name]
    assert skip
    for branch in range(len(graph.units)):
        for other in skip:  # a branch and the skip beside it cut the only two ways
            mask = graph.mask([branch, other])
            if branch != other and not liveness(graph, mask).connected:
                assert (min(branch, other), max(branch, other)) not in both


def test_the_process_on_the_graph_finds_a_planted_pair(graph: Graph) -> None:
    branches, truth = quadratic(graph, 0.0)
    rng = np.random.default_rng(0)
    X = (rng.random((80, len(graph.units))) < 0.4).astype(float)
    model = GraphGP(graph).fit(X, np.exp(0.3 * truth.predict_link(X)))
    found = interactions(model, graph, graph.empty, units=branches)
    assert found.pairs[0].known
    assert found.pairs[0].effect == pytest.approx(0.21, abs=0.08)
