"""A network that was traced in one precision runs in others as its model does."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.pruning.prune import compare
from hugging_face import IDS, make, one_process, pruned


class Casts(nn.Module):
    """Dtypes taken from a tensor and dtypes written out, as tracing sees them in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 8), nn.Linear(8, 3)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("steps", torch.arange(8.0))
        self.seen: list[torch.dtype] = []

    def forward(self, x):
        y = self.enter(x)
        y = y + self.inner(y)
        wide = y.to(torch.float32)
        mean = wide.pow(2).mean(-1, keepdim=True)
        y = self.scale * (wide * torch.rsqrt(mean + 1e-6)).to(y.dtype)
        low = torch.full((8,), torch.finfo(y.dtype).min, dtype=y.dtype, device=y.device)
        bias = torch.where(self.steps > 5, low, torch.zeros(8, dtype=y.dtype, device=y.device))
        places = torch.arange(8, device=y.device, dtype=torch.float32).sin().to(x.dtype)
        weights = torch.softmax(y + bias, -1, dtype=torch.float32).to(y.dtype)
        return self.leave(weights + places)


class Written(nn.Module):
    """The precision of the weights, as Python reads it off them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.enter(x)
        y = (y + torch.relu(y)).float().to(next(self.parameters()).dtype)
        return self.leave(y)


def half(value: Any, dtype: torch.dtype = torch.bfloat16) -> Any:
    return value.to(dtype) if value.is_floating_point() else value


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", [Casts, Written])
def test_what_follows_the_precision_in_the_model_follows_it(kind: Any, dtype: torch.dtype) -> None:
    model, x = kind().eval(), torch.randn(4, 8)
    graph = ew.trace(model, (x,))
    small, full = ew.prune(graph, graph.empty).eval(), ew.masked(graph, graph.empty).eval()
    for module in (model, small, full):
        module.to(dtype)
    with torch.no_grad():
        expected = model(x.to(dtype))
        assert expected.dtype == dtype
        for module in (small, full):
            assert torch.equal(module(x.to(dtype)), expected)


@pytest.mark.parametrize("unit", range(3))
def test_parts_that_are_gone_leave_the_precision_free(unit: int) -> None:
    graph = ew.trace(Casts().eval(), torch.randn(4, 8), granularity=("edge", "hidden"))
    mask = graph.mask([unit])
    small, full = ew.prune(graph, mask), ew.masked(graph, mask)
    x = torch.randn(4, 8).bfloat16()
    worst, allowed = compare(full.bfloat16(), small.bfloat16(), (x,))
    assert worst <= allowed


def test_autocast_and_other_devices() -> None:
    x = torch.randn(4, 8)
    graph = ew.trace(Casts().eval(), x)
    small = ew.prune(graph, graph.mask([0])).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert small(x).isfinite().all()
    assert small.to("meta")(x.to("meta")).is_meta


def test_a_pruned_network_that_is_traced_again_or_pickled_follows_too() -> None:
    x = torch.randn(4, 8)
    graph = ew.trace(Casts().eval(), x)
    small = ew.prune(graph, graph.mask([0])).eval()
    again = ew.trace(small, x, granularity="raw")
    twice = ew.prune(again, again.empty).eval()
    expected = copy.deepcopy(small).bfloat16()(x.bfloat16())
    for module in (twice, pickle.loads(pickle.dumps(small))):
        assert torch.equal(module.bfloat16()(x.bfloat16()), expected)


def test_tracing_in_another_precision_gives_the_same_network() -> None:
    for kind in (Casts, Written):
        model, x = kind().eval(), torch.randn(4, 8)
        first, second = ew.trace(model, x), ew.trace(copy.deepcopy(model).double(), x.double())
        assert first.structure == second.structure


@one_process
def test_transformers_in_half_precision() -> None:
    graph, _, _ = pruned("Llama")
    small, model = ew.prune(graph, graph.empty).eval(), make("Llama")
    with torch.no_grad():
        loss = small(input_ids=IDS).logits.logsumexp(-1).mean()
        half_logits = small.bfloat16()(input_ids=IDS).logits
        assert torch.equal(half_logits, model.bfloat16()(IDS, use_cache=False).logits)
    assert abs(half_logits.float().logsumexp(-1).mean() - loss) <= 2e-2 * abs(loss)


def test_torchvision_in_half_precision() -> None:
    models = pytest.importorskip("torchvision.models")
    x = torch.randn(2, 3, 32, 32)
    graph = ew.trace(models.mobilenet_v3_small(weights=None).eval(), x)
    small = ew.prune(graph, graph.mask([0])).eval()
    full = ew.masked(graph, graph.mask([0])).eval()
    worst, allowed = compare(full.bfloat16(), small.bfloat16(), (half(x),))
    assert worst <= allowed
