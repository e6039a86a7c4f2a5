"""Masks side by side through the network give what they give one by one."""

from __future__ import annotations

import itertools
import time
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.evaluation import evaluator
from edgewise.evaluation.engine import EngineOptions
from edgewise.evaluation.engine.run import Run
from edgewise.evaluation.engine.stack import Stack, fastest
from edgewise.evaluation.evaluator import Engine
from edgewise.pruning.prune import TOLERANCE
from edgewise.testing import ZOO
from evaluation.engine.test_engine import apart, outputs_of, some_masks, traced


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 8))
def test_stacked_masks_give_what_masked_models_give(name: str, seed: int, size: int) -> None:
    graph, args = traced(name, torch.float64)
    options = EngineOptions(stack=size)
    found = outputs_of(graph, args, some_masks(graph, seed, 8), options=options)
    for bits, (out, _) in found.items():
        with torch.no_grad():
            full = ew.masked(graph, graph.mask(bits=bits)).eval()(*args)
        assert apart(full, out) <= TOLERANCE[torch.float64]


def chain(layers: int = 4) -> tuple[ew.Graph, torch.Tensor]:
    """Residual linear layers, whose masks differ in all that follows the first removal."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(layers))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = x + F.relu(layer(x))
            return x

    x = torch.randn(5, 6)
    return ew.trace(Residual().eval(), (x,), granularity="edge"), x


def engine_of(graph: ew.Graph, x: torch.Tensor, stack: int | None) -> Engine:
    objective = ew.Objective([(x, torch.zeros(5))], lambda out, y: out.square().sum(1) - y)
    return Engine(graph, objective, EngineOptions(stack=stack))


def all_masks(graph: ew.Graph) -> list[ew.Mask]:
    masks = (graph.mask(bits=b) for b in itertools.product((0, 1), repeat=len(graph.units)))
    return [mask for mask in masks if ew.liveness(graph, mask).connected]


@pytest.mark.parametrize("stack", [1, 16])
def test_a_layer_runs_once_for_all_masks(stack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = chain()
    graph = graph.select(lambda unit: unit.cost.macs > 0)
    calls: list[int] = []
    monkeypatch.setattr(
        nn.Linear, "forward",
        lambda self, x: calls.append(len(x)) or F.linear(x, self.weight, self.bias),
    )  # fmt: skip
    engine = engine_of(graph, x, stack)
    engine.pace = 1e-9  # known, so that all masks share
    calls.clear()
    outcomes = list(engine.evaluate(all_masks(graph)))
    assert len(outcomes) == 16
    assert all(outcome.evaluation.ok for outcome in outcomes)
    assert sum(calls) == 5 * (1 + 2 + 4 + 8)  # what differs upstream of each layer, and no more
    assert len(calls) == (15 if stack == 1 else 4)


def test_a_mask_that_fails_takes_no_other_with_it() -> None:
    graph, x = chain()
    graph = graph.select(lambda unit: unit.cost.macs > 0)

    engine = engine_of(graph, x, 16)
    programs = [engine.compiler.program(mask) for mask in all_masks(graph)]
    first = next(step for step in programs[0].steps if step.place == programs[0].output.place - 2)

    def broken(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such operator")

    first.call, first.work = broken, None
    results = [value for _, value, _ in Stack(programs, 16).piece((x,))]
    failed = [first in program.steps for program in programs]
    assert any(failed)
    assert not all(failed)
    assert [isinstance(value, RuntimeError) for value in results] == failed


def test_what_does_not_fit_together_runs_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = chain()
    masks, whole = all_masks(graph), torch.cat
    expected = {
        o.evaluation.mask: o.evaluation.loss for o in engine_of(graph, x, 1).evaluate(masks)
    }

    def limited(parts: tuple[torch.Tensor, ...], *rest: object) -> torch.Tensor:
        if len(parts) > 2:
            raise torch.OutOfMemoryError("too much")
        return whole(parts)

    monkeypatch.setattr(torch, "cat", limited)
    found = {o.evaluation.mask: o.evaluation.loss for o in engine_of(graph, x, 16).evaluate(masks)}
    assert found == pytest.approx(expected)


def test_an_accelerator_takes_the_faster_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one at hand: the engine is told that it has one, and how the clock went."""
    graph, x = chain()
    masks = all_masks(graph)
    monkeypatch.setattr(evaluator, "on_processor", lambda graph: False)
    ways: list[list[int]] = []
    for winner, kind in ((1, Run), (32, Stack)):
        ways.clear()
        monkeypatch.setattr(
            evaluator, "fastest", lambda found, w=winner: ways.append([*found]) or w
        )
        engine = engine_of(graph, x, None)
        assert len(list(engine.evaluate(masks))) == len(masks)
        assert ([sorted(way) for way in ways], engine.stack) == ([[1, 32]], winner)
        programs = [engine.compiler.program(mask) for mask in masks]
        assert isinstance(engine._runner(programs, "search"), kind)


def test_the_fastest_way_is_timed_when_it_is_warm() -> None:
    pauses = {1: [0.05, 0.0], 2: [0.0, 0.05]}

    def way(name: int) -> list[None]:
        return [time.sleep(pauses[name].pop(0))]

    assert fastest({name: partial(way, name) for name in pauses}) == 1
