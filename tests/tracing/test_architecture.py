"""What a plan keeps of a network tells every other network from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.study.provenance import weights
from edgewise.tracing.architecture import (
    operators,
    other_constant,
    other_parameter,
    parameters,
    settings,
    unsaved,
)
from edgewise.values.description import settings_of
from edgewise.values.identity import difference
from zoo import ZOO, build, traced


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
    """Whatever its weights and its units."""
    graph, again = traced(name), traced(name, seed=3)
    assert other_parameter(parameters(graph), build(name, seed=3)[0]) is None
    assert difference(operators(graph), operators(again)) is None
    assert difference(graph.settings, again.settings) is None
    assert other_constant(unsaved(graph.program.module), traced(name, "raw")) is None


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
        (Net(gate=nn.GELU), "gate was ReLU 1x6 of first and is GELU 1x6 of first"),
        (Longer(), "add#2: add 1x4 of add stands in place of output: "),
    ],
)
def test_the_first_operator_that_differs_is_named(other: nn.Module, words: str) -> None:
    graph = ew.trace(Net(), X)
    said = difference(operators(graph), operators(ew.trace(other, X)))
    assert words in str(said)
    assert other_parameter(parameters(graph), other) is None


def test_weights_that_are_not_there_yet_differ() -> None:
    lines = parameters(ew.trace(nn.Sequential(nn.Linear(4, 4)), X, granularity="raw"))
    said = other_parameter(lines, nn.Sequential(nn.LazyLinear(4)))
    assert said == "parameter '0.weight' is not initialised instead of 4x4"


def _other(value: Any) -> Any:
    """Another value of the same kind; None where there is no telling."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "?"
    if isinstance(value, tuple) and value:
        return (_other(value[0]), *value[1:])
    return None


@pytest.mark.parametrize("name", ZOO)
def test_every_setting_of_every_layer_counts(name: str) -> None:
    graph = traced(name)
    program = graph.program.module
    before = settings(program)
    assert before == graph.settings
    called = {str(n.target) for n in program.graph.nodes if n.op == "call_module"}
    for path in sorted(called):
        module = program.get_submodule(path)
        for setting in settings_of(module):
            value = getattr(module, setting)
            changed = None if setting.startswith("_") else _other(value)
            if changed is not None:
                module.__dict__[setting] = changed
                assert settings(program) != before, (path, setting)
                module.__dict__[setting] = value
    assert settings(program) == before


class Made(nn.Module):
    """Reads a tensor that tracing makes, and one that is a plain attribute."""

    def __init__(self, start: float, plain: float) -> None:
        super().__init__()
        self.layer, self.start, self.plain = nn.Linear(4, 4), start, torch.tensor(plain)

    def forward(self, x):
        return x + self.layer(x) * torch.full((4,), self.start) * self.plain


@pytest.mark.parametrize("other", [(2.0, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
def test_tensors_that_no_state_dict_of_the_model_has_count(other, frontend) -> None:
    models = Made(1.0, 1.0), Made(*other)
    models[1].load_state_dict(models[0].state_dict())
    one, two = (ew.trace(model, X, frontend=frontend) for model in models)
    changes = [difference(of(one), of(two)) for of in (weights, lambda graph: graph.settings)]
    assert any(changes)
    again = ew.trace(models[0], X, frontend=frontend)
    assert weights(again) == weights(one)


def test_a_network_in_another_precision_has_the_same_settings() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.layer(x).to(self.layer.weight.dtype)

    one, half = ew.trace(Casts(), X), ew.trace(Casts().double(), X.double())
    assert one.fingerprint == half.fingerprint
