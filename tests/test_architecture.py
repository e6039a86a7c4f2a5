"""What a plan keeps of a network tells every other network from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.architecture import operators, other_operator, other_parameter, parameters
from edgewise.testing import ZOO, build


class Net(nn.Module):
    """Two layers and a gate; every argument changes another thing."""

    def __init__(self, width: int = 6, last: str = "last", gate: type = nn.ReLU) -> None:
        super().__init__()
        self.first, self.gate = nn.Linear(4, width), gate()
        setattr(self, last, nn.Linear(width, 4))
        self.end = getattr(self, last)

    def forward(self, x):
        return x + self.end(self.gate(self.first(x)))


class Longer(Net):
    def forward(self, x):
        return super().forward(x) + 1.0


X = torch.ones(2, 4)


@pytest.mark.parametrize("name", ZOO)
def test_a_network_does_not_differ_from_itself(name: str) -> None:
    model, args = build(name)
    graph = ew.trace(model, args)
    again = build(name, seed=3)[0]
    assert other_parameter(parameters(graph), again) is None
    assert other_operator(operators(graph), ew.trace(again, args)) is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Net(width=5), "parameter 'first.weight' is 5x4 instead of 6x4"),
        (Net(last="tail"), "it has no parameter 'last.weight' (4x6)"),
    ],
)
def test_the_first_parameter_that_differs_is_named(other: nn.Module, words: str) -> None:
    assert other_parameter(parameters(ew.trace(Net(), X)), other) == words


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Net(gate=nn.GELU), "operator 3 is 'gate: GELU 1x6 of first' instead of 'gate: ReLU"),
        (Longer(), "operator 6 is 'add#2: add 1x4 of add' instead of 'output: "),
    ],
)
def test_the_first_operator_that_differs_is_named(other: nn.Module, words: str) -> None:
    graph = ew.trace(Net(), X)
    said = other_operator(operators(graph), ew.trace(other, X))
    assert words in str(said)
    assert other_parameter(parameters(graph), other) is None


def test_weights_that_are_not_there_yet_differ() -> None:
    lines = parameters(ew.trace(nn.Sequential(nn.Linear(4, 4)), X, granularity="raw"))
    said = other_parameter(lines, nn.Sequential(nn.LazyLinear(4)))
    assert said == "parameter '0.weight' is not initialised instead of 4x4"
