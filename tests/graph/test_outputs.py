"""No head is lost in silence: which units stay, and what is told of masks that cut outputs off."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import edgewise as ew
from edgewise.graph.outputs import severed


class TwoHeads(nn.Module):
    """A policy and a value that has an offset of its own, behind residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.policy = nn.Linear(16, 16)
        self.value = nn.Linear(16, 1)
        self.offset = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.blocks:
            x = x + block(x).relu()
        return self.policy(x).log_softmax(1), self.value(x) + self.offset


class TwoInputs(nn.Module):
    """A sum of what two ways make of one input, and one of another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.head(self.a(x) + self.b(x).relu() + self.c(z))


@pytest.fixture(scope="module")
def heads() -> ew.Graph:
    return ew.trace(TwoHeads().eval(), (torch.randn(2, 16),), granularity=("edge", "layer"))


@pytest.fixture(scope="module")
def inputs() -> ew.Graph:
    args = (torch.randn(2, 4), torch.randn(2, 4))
    return ew.trace(TwoInputs().eval(), args, granularity="edge")


def test_a_head_and_its_only_path_stay(heads: ew.Graph) -> None:
    names = [unit.name for unit in heads.units]
    assert any("blocks.0" in name for name in names)
    assert "bypass:blocks.1" in names
    assert not [name for name in names if "policy" in name or "value" in name]
    raw = ew.trace(TwoHeads().eval(), (torch.randn(2, 16),), granularity="raw")
    assert [unit.name for unit in raw.units if "value" in unit.name]


def test_what_a_mask_cuts_off_is_named(inputs: ew.Graph) -> None:
    assert not [unit.name for unit in inputs.units if "c" in unit.name.split("->")[0]]
    a, b = (next(i for i, u in enumerate(inputs.units) if name in u.name) for name in "ab")
    assert severed(inputs, inputs.mask([a])) == {}
    assert severed(inputs, inputs.mask([a, b])) == {"head": ("x",)}


@given(st.data())
def test_severed_outputs_do_not_change_with_the_input_and_others_do(data: st.DataObject) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TwoInputs().eval()
    args = (torch.randn(2, 4), torch.randn(2, 4))
    graph = ew.trace(model, args, granularity="raw")
    bits = data.draw(st.lists(st.booleans(), min_size=len(graph.units), max_size=len(graph.units)))
    mask = graph.mask(bits="".join(map(str, map(int, bits))))
    if not ew.liveness(graph, mask).connected:
        return
    lost = {name for names in severed(graph, mask).values() for name in names}
    run = ew.masked(graph, mask)
    for place, name in enumerate(("x", "z")):
        other = [a + (3 + torch.rand_like(a)) * (i == place) for i, a in enumerate(args)]
        assert torch.equal(run(*args), run(*other)) == (name in lost)


def test_plans_and_evaluations_that_cut_an_output_off_are_told(
    inputs: ew.Graph, caplog: pytest.LogCaptureFixture
) -> None:
    x, z = torch.randn(32, 4), torch.randn(32, 4)
    with torch.no_grad():
        y = TwoInputs().head(z)
    study = ew.Study(inputs, ew.Objective([((x, z), y)], "mse"))
    with caplog.at_level(logging.WARNING, "edgewise"):
        study.run(6, ew.Budget(macs=0.6))
        plan = study.plan(finalists=2)
    assert len(plan.removed) == 2
    assert caplog.text.count("the output head no longer depends on x. It is measured") == 1
    assert "In this plan the output head no longer depends on x: keep one" in caplog.text
