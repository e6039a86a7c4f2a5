"""Costs against numbers counted by hand."""

import torch

import edgewise as ew
from edgewise.records import Budget


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
    assert ew.cost(graph, branch) == ew.Cost(1, 108, 25 * 108, 400)
    assert next(u for u in graph.units if u.name == "b..relu").cost.params == 148


def test_cost_is_that_of_one_example(residual: ew.Graph) -> None:
    from edgewise.testing import build

    model, args = build("residual")
    one = ew.trace(model, (args[0][:1],))
    assert ew.cost(one) == ew.cost(residual)


def test_budgets_read_fractions_and_numbers() -> None:
    unpruned, half = ew.Cost(10, 1000, 5000, 64), ew.Cost(5, 500, 2500, 32)
    assert Budget(macs=0.5).allows(half, unpruned)
    assert not Budget(macs=0.49).allows(half, unpruned)
    assert Budget(units=5, params=500).allows(half, unpruned)
    assert Budget(params=499).excess(half, unpruned) > 0
