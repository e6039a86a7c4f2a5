"""Scores of single units: exact where the loss is linear, and in the order that norms give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.errors import EdgewiseError
from edgewise.study import scores
from zoo import build

KINDS = ("edge", "layer")


class Branches(nn.Module):
    """A sum of branches, and an activation that writes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = (nn.Linear(4, 4) for _ in range(3))
        self.bend = nn.Hardtanh(-1e6, 1e6, inplace=True)  # far away
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        x = x + self.a(x) + self.b(x)
        return self.last(self.bend(x))


def mean_loss(outputs, targets):
    return (outputs * targets).sum(1)


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return ew.trace(
        Branches().double(), (torch.randn(1, 4).double(),), granularity=("edge", "layer")
    )


@pytest.fixture
def batches():
    random = torch.Generator().manual_seed(1)
    x, y = (torch.randn(32, n, generator=random).double() for n in (4, 2))
    return [((x[:16],), y[:16]), ((x[16:],), y[16:])]


def test_taylor_is_exact_where_the_rest_of_the_network_is_linear(graph, batches) -> None:
    """Behind the sums nothing bends."""
    found = scores.taylor(graph, batches, mean_loss)
    checked = 0
    for index, unit in enumerate(graph.units):
        network = ew.masked(graph, graph.mask([index]))
        if unit.name == "bypass:first":
            continue
        with torch.no_grad():
            exact = [
                float((mean_loss(network(*x), y) - mean_loss(graph.program.module(*x), y)).mean())
                for x, y in batches
            ]
        assert found[index] == pytest.approx(np.abs(exact).mean(), rel=1e-9), unit.name
        checked += 1
    assert checked >= 3


def test_inputs_need_no_tuple(graph, batches) -> None:
    plain = [(x, y) for (x,), y in batches]
    for score in (lambda data: scores.taylor(graph, data, mean_loss),
                  lambda data: scores.influence(graph, data)):  # fmt: skip
        np.testing.assert_array_equal(score(plain), score(batches))


def test_magnitude_is_the_norm_of_what_goes(graph) -> None:
    found = dict(zip([u.name for u in graph.units], scores.magnitude(graph), strict=True))
    layer = graph.program.module.get_submodule("a")
    expected = sum(float(p.detach().square().sum()) for p in layer.parameters()) ** 0.5
    assert found["a"] == pytest.approx(expected)


def test_influence_is_between_zero_and_two_and_zero_for_what_does_nothing(batches) -> None:
    torch.manual_seed(0)
    model = Branches().double()
    with torch.no_grad():
        model.a.weight.zero_()
        model.a.bias.zero_()
    graph = ew.trace(model, (torch.randn(1, 4).double(),), granularity="edge")
    found = dict(zip([u.name for u in graph.units], scores.influence(graph, batches), strict=True))
    assert found.pop("a") == pytest.approx(0.0, abs=1e-12)
    assert all(0 < value <= 2 for value in found.values())
    assert found["b"] > 1e-6


@pytest.mark.parametrize("name", ["residual", "dense", "squeeze_excite", "in_place"])
def test_every_unit_of_real_graphs_is_scored(name: str) -> None:
    model, args = build(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    data = [(args, torch.zeros(len(args[0]), dtype=torch.long))]

    def loss(outputs, targets):
        return outputs.square().flatten(1).mean(1)

    for found in (scores.magnitude(graph), scores.taylor(graph, data, loss),
                  scores.influence(graph, data)):  # fmt: skip
        assert found.shape == (len(graph.units),)
        assert np.isfinite(found).all()
        assert (found >= -1e-9).all()
    assert (scores.taylor(graph, data, loss) > 0).mean() > 0.5
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_widths_keep_their_importance() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("edge", "hidden"))
    found = scores.influence(graph, [(args, None)])
    for unit, value in zip(graph.units, found, strict=True):
        assert not unit.group or value == unit.importance


def test_no_data_is_an_error(graph) -> None:
    with pytest.raises(EdgewiseError, match="at least one batch"):
        scores.taylor(graph, [], mean_loss)
