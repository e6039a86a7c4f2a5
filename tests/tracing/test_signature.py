"""A pruned network takes the arguments of its model, and says which values it was traced for."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import edgewise as ew
from edgewise.errors import ObjectiveError, TraceError
from edgewise.tracing.signature import Traced, plain


@dataclass
class Answer:
    scores: torch.Tensor
    total: torch.Tensor | None = None


class Pair(NamedTuple):
    scores: torch.Tensor
    total: torch.Tensor | None = None


KINDS = {
    "dataclass": Answer,
    "namedtuple": Pair,
    "dict": lambda scores, total=None: {"scores": scores, "total": total},
    "ordered": lambda scores, total=None: OrderedDict(scores=scores, total=total),
}


class Scorer(nn.Module):
    """Constants before, between and behind its inputs."""

    def __init__(self, kind: str = "dataclass") -> None:
        super().__init__()
        self.kind = kind
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 3)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    def forward(
        self, x, cache=None, weights=None, power: float = 1.0, total: bool = False, like=None
    ):
        y = torch.relu(self.enter(x))
        y = self.leave(y + self.inner(y)) * power
        if weights is not None:
            y = y * weights
        return KINDS[self.kind](y, y.sum() if total else None)


X, WEIGHTS = torch.randn(2, 6), torch.rand(2, 3)


def both(kwargs: dict[str, Any], kind: str = "dataclass", **options: Any) -> list[nn.Module]:
    graph = ew.trace(Scorer(kind).eval(), (X,), kwargs, **options)
    mask = graph.mask([0])
    return [ew.prune(graph, mask), ew.masked(graph, mask)]


def copies(module: nn.Module) -> list[nn.Module]:
    """The module, and what it is after everything that users do with one."""
    pickled = pickle.loads(pickle.dumps(module))
    if isinstance(pickled, torch.fx.GraphModule):
        pickled.recompile()
    again = ew.trace(module, (X,), granularity="raw")
    twice = ew.prune(again, again.empty)
    return [module, copy.deepcopy(module), pickled, pickle.loads(pickle.dumps(pickled)), twice]


@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
def test_traced_values_may_be_given_and_others_are_refused(frontend: str) -> None:
    small, full = both({"power": 2.0, "total": True}, "dict", frontend=frontend)
    expected = full(X)
    for module in (*copies(small), full):
        for found in (
            module(X), module(x=X), module(X, None, None, 2.0), module(X, power=2, total=True),
        ):  # fmt: skip
            assert torch.allclose(found["total"], expected["total"], atol=1e-5)
        with pytest.raises(ObjectiveError, match=r"traced with power=2\.0 .* with power=3\.0"):
            module(X, power=3.0)
        with pytest.raises(ObjectiveError, match=r"traced with weights=None .* weights=a tensor"):
            module(X, weights=WEIGHTS)
        with pytest.raises(ObjectiveError, match="total=False"):
            module(X, None, None, 2.0, False)
        with pytest.raises(TypeError, match="unknown"):
            module(X, unknown=1)
        with pytest.raises(TypeError, match="x"):
            module()


@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
def test_inputs_keep_their_places_behind_constants(frontend: str) -> None:
    small, full = both({"weights": WEIGHTS}, "dict", frontend=frontend)
    expected = full(X, weights=WEIGHTS)["scores"]
    for module in (small, copy.deepcopy(small), full):
        assert torch.allclose(module(X, None, WEIGHTS, 1.0)["scores"], expected, atol=1e-5)
        assert torch.allclose(module(weights=WEIGHTS, x=X)["scores"], expected, atol=1e-5)
        with pytest.raises(ObjectiveError, match="a tensor as argument 'weights'"):
            module(X)
    again = ew.trace(small, (X, None, WEIGHTS), granularity="raw", frontend=frontend)
    found = ew.masked(again, again.empty)(X, None, WEIGHTS)["scores"]
    assert torch.allclose(found, expected, atol=1e-5)


def test_arguments_are_exported(tmp_path: Any) -> None:
    small, _ = both({"weights": WEIGHTS, "total": True}, "dict")
    for name in ("small.pt2", "small.onnx"):
        assert any(0 in axes for axes in ew.export(small, tmp_path / name).free.values())


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_stay_of_their_class(kind: str) -> None:
    expected = type(Scorer(kind)(X))
    for module in both({"total": True}, kind):
        found = module(X)
        assert type(found) is expected
        assert isinstance(found["total"] if isinstance(found, dict) else found.total, torch.Tensor)


def test_healing_keeps_the_arguments() -> None:
    small, _ = both({"power": 2.0})
    healed = ew.heal(
        small, [(X, X)], loss=lambda out, _: out.scores.square().mean(),
        settings=ew.Healing(epochs=1),
    )  # fmt: skip
    assert isinstance(healed(X, power=2.0), Answer)
    with pytest.raises(ObjectiveError, match="power"):
        healed(X, power=1.0)


def test_none_may_be_given_where_it_was_traced() -> None:
    graph = ew.trace(Scorer().eval(), (X, None))
    small = ew.prune(graph, graph.mask([0]))
    assert torch.equal(small(X, None).scores, small(X).scores)
    assert "argument cache=None" in graph.fixed
    assert "argument power=1.0" in graph.summary()
    assert list(inspect.signature(small.forward).parameters) == list(
        inspect.signature(Scorer().forward).parameters
    )


def test_values_that_are_not_plain_are_compared_too() -> None:
    for module in both({"like": torch.float16}):
        assert torch.equal(module(X, like=torch.float16).scores, module(X).scores)
        with pytest.raises(ObjectiveError, match=r"like=dtype torch\.float16 .* torch\.float32"):
            module(X, like=torch.float32)


def test_tracing_a_pruned_network_with_another_value_is_refused() -> None:
    small, _ = both({"power": 2.0})
    with pytest.raises(TraceError, match=r"with power=2\.0"):
        ew.trace(small, (X,), {"power": 3.0})


def test_a_network_without_constants_has_no_check() -> None:
    graph = ew.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.ones(2, 4))
    assert "as_traced" not in ew.prune(graph, graph.empty).code


NAMES = [f"a{i}" for i in range(6)]
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.just(torch.float16))


@given(st.lists(st.one_of(st.just("input"), VALUES), min_size=1, max_size=6), st.data())
def test_inputs_are_told_from_constants_in_any_order(values: list[Any], data: Any) -> None:
    names = NAMES[: len(values)]
    full = [torch.ones(1) * i if v == "input" else v for i, v in enumerate(values)]
    fixed = [(n, plain(v)) for n, v in zip(names, full, strict=True) if not torch.is_tensor(v)]
    traced = Traced("Model", tuple(names), tuple(fixed))
    inputs = tuple(v for v in full if torch.is_tensor(v))
    by_place = data.draw(st.integers(0, len(full)))
    given_by_name = dict(zip(names[by_place:], full[by_place:], strict=True))
    assert traced.inputs(tuple(full[:by_place]), given_by_name) == inputs
    assert traced.inputs(traced.positional(inputs), {}) == inputs
