"""Costs against numbers counted by hand."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.graph.budget import Budget
from edgewise.graph.operators.table import TABLE
from edgewise.testing import laws
from zoo import ZOO, build, traced


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.b = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = self.a(x)
        return y + torch.relu(self.b(y))


def test_by_hand() -> None:
    graph = ew.trace(Two(), (torch.randn(2, 3, 5, 5),), granularity="edge")
    whole = ew.cost(graph)
    assert whole.params == 3 * 4 * 9 + 4 * 4 * 9 + 4
    assert whole.macs == 25 * (3 * 4 * 9 + 4 * 4 * 9)
    assert whole.activation_bytes == 4 * 100 * 4  # two convolutions, relu, sum
    assert whole.units == 2
    branch = graph.mask(["b..relu"])
    assert ew.cost(graph, branch) == ew.Cost(1, 108, 25 * 108, 400, 4 * 108)
    assert next(u for u in graph.units if u.name == "b..relu").cost.params == 148


def test_cost_is_that_of_one_example(residual: ew.Graph) -> None:
    model, args = build("residual")
    one = ew.trace(model, (args[0][:1],), granularity=("edge", "layer"))
    assert ew.cost(one) == ew.cost(residual)


def test_budgets_read_fractions_and_numbers() -> None:
    unpruned, half = ew.Cost(10, 1000, 5000, 64), ew.Cost(5, 500, 2500, 32)
    assert Budget(macs=0.5).allows(half, unpruned)
    assert not Budget(macs=0.49).allows(half, unpruned)
    assert Budget(units=5, params=500).allows(half, unpruned)
    assert Budget(params=499).excess(half, unpruned) > 0


def test_weights_take_the_bytes_of_their_own_precision() -> None:
    model = Two().double()
    graph = ew.trace(model, (torch.randn(2, 3, 5, 5, dtype=torch.float64),), granularity="edge")
    assert ew.cost(graph).weight_bytes == 8 * ew.cost(graph).params
    assert (
        graph.fingerprint
        == ew.trace(Two(), (torch.randn(1, 3, 5, 5),), granularity="edge").fingerprint
    )


class Tied(torch.nn.Module):
    """One linear layer read by two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(3, 3)

    def forward(self, x):
        return x + self.one(x) + torch.relu(self.one(x))


def test_a_tied_parameter_counts_once_and_goes_with_its_last_reader() -> None:
    graph = ew.trace(Tied(), (torch.randn(2, 3),), granularity="edge")
    branches = [u.name for u in graph.units if u.name in ("one", "one#2..relu")]
    assert len(branches) == 2
    assert ew.cost(graph).params == 12
    assert ew.cost(graph, graph.mask(branches[:1])).params == 12
    assert ew.cost(graph, graph.mask(branches[1:])).params == 12
    assert ew.cost(graph, graph.mask(branches)).params == 0
    assert [u.cost.params for u in graph.units if u.name in branches] == [0, 0]


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_units_and_activations_are_those_of_what_is_alive(name: str, seed: int) -> None:
    graph, rng = traced(name), random.Random(seed)
    mask = graph.mask(rng.sample(range(len(graph.units)), rng.randint(0, len(graph.units) // 2)))
    alive = ew.liveness(graph, mask)
    if not alive.connected:
        return
    activation_bytes = 0
    for index, (vertex, state) in enumerate(zip(graph.vertices, alive.states, strict=True)):
        passes = index in alive.bypassed or index in alive.forwarded
        view = vertex.op in ("input", "output") or TABLE.rules[vertex.op].view
        if state is not None and vertex.shape is not None and not passes and not view:
            sizes = dict(enumerate(vertex.shape)) | {a: sum(keep) for a, keep in state.keeps}
            activation_bytes += math.prod(sizes.values()) * vertex.itemsize
    edges = {e for e, want in enumerate(alive.wants) if want is not None}
    layers = {i for i, s in enumerate(alive.states) if s is not None} - alive.bypassed
    live = [u for u in graph.units if u.removal.edges & edges or u.removal.layers & layers]
    cost = ew.cost(graph, mask)
    assert (cost.units, cost.activation_bytes) == (len(live), activation_bytes)


def test_attention_of_learned_queries_counts_in_a_network_and_around_a_part() -> None:
    """A decoder as that of DETR: the queries meet one another before they see any data."""

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries = nn.Parameter(torch.randn(1, 2, 5, 8))
            self.memory, self.leave = nn.Linear(8, 16), nn.Linear(8, 3)

        def forward(self, x):
            keys, values = self.memory(x).view(len(x), -1, 2, 16).transpose(1, 2).split(8, 3)
            own = F.scaled_dot_product_attention(*[self.queries] * 3).expand(len(x), -1, -1, -1)
            y = F.scaled_dot_product_attention(own, keys, values)
            return self.leave(y)

    model, x = Decoder().eval(), torch.randn(2, 14, 8)
    counted = 14 * 8 * 16 + 2 * (5 * 5 * 16 + 5 * 7 * 16) + 2 * 5 * 8 * 3
    assert laws.count_macs(model, (x[:1],)) == counted
    assert ew.cost(ew.trace(model, x, granularity="raw")).macs == counted
    whole = nn.Sequential(nn.Sequential(nn.Linear(8, 8)), model)
    assert ew.trace(whole.eval(), x[:1], part="0", granularity="raw").rest.macs == counted
