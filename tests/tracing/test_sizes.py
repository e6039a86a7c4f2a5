"""Lengths and image sizes beside the traced ones: right, or refused with a reason."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import ObjectiveError
from edgewise.evaluation.evaluator import Engine
from edgewise.tracing import agreement, probe
from edgewise.tracing.probe import run
from edgewise.tracing.sizes import axes_by_size, variations


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, 4, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return x + self.o(y)


class Gate(nn.Module):
    """Squeeze and excite with views, whose numbers depend on height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.down, self.up = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x):
        y = self.stem(x)
        b, c, h, w = y.shape
        mean = y.view(b, c, h * w).sum(2) / (h * w)
        gate = torch.sigmoid(self.up(F.relu(self.down(mean)))).view(b, c, 1, 1)
        return self.last(y * gate + y)


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        y = x + F.relu(self.a(x))
        if x.shape[-1] > 20:
            y = y * 2
        return self.o(y + F.relu(self.b(y)))


class Asks(nn.Module):
    def __init__(self, asks) -> None:
        super().__init__()
        self.asks = asks
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        y = x + F.relu(self.a(x)) * self.asks(x)
        return y + F.relu(self.b(y))


class Once(nn.Module):
    """Takes one length only."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.a, self.b = (
            nn.Parameter(torch.randn(6, 8)),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
        )

    def forward(self, x):
        x = x + self.place
        return x + self.b(F.relu(self.a(x)))


def image(height: int, width: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randn(batch, 3, height, width, generator=generator)


def rows(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(length))


CASES = {
    "heads": (Heads, rows(5), [rows(9), rows(7, 3)], ("edge", "heads")),
    "gate": (Gate, image(12, 12), [image(18, 18), image(12, 20), image(9, 11)], ("edge", "hidden")),
    "decides": (Decides, image(16, 16), [image(24, 24), image(24, 16)], ("edge",)),
}  # fmt: skip


FRONTENDS = {"heads": ("torch.fx", "torch.export"), "gate": ("torch.fx", "torch.export"),
             "decides": ("torch.export",)}  # fmt: skip


@pytest.mark.parametrize(("name", "frontend"), [(n, f) for n in CASES for f in FRONTENDS[n]])
def test_other_sizes_are_right_or_refused(name: str, frontend: str) -> None:
    make, example, others, kinds = CASES[name]
    model = make().eval()
    graph = ew.trace(model, example, granularity=kinds, frontend=frontend)
    masks = [graph.empty, *(graph.mask([unit]) for unit in range(len(graph.units)))]
    for mask in masks:
        if not ew.liveness(graph, mask).connected:
            continue
        small = ew.prune(graph, mask).eval()
        for other in others:
            found, expected = _given(small, other), _given(ew.masked(graph, mask), other)
            if isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
                assert torch.allclose(found, expected, atol=1e-5)
            if mask == graph.empty and isinstance(found, torch.Tensor):
                assert torch.allclose(found, model(other), atol=1e-5)


def _given(module: nn.Module, inputs: torch.Tensor) -> Any:
    """What a module gives, or that it refuses; torch's own errors are neither."""
    try:
        with torch.no_grad():
            return module(inputs)
    except ObjectiveError:
        return None


def test_what_tracing_fixed_is_told() -> None:
    graph = ew.trace(Decides(), image(16, 16), granularity="edge")
    assert graph.fixed == ("x.shape[3] <= 20",)
    assert "taken from the example: x.shape[3] <= 20" in graph.summary()
    free = ew.trace(Heads(), rows(5), granularity="edge")
    assert free.fixed == ()
    assert free.program.sizes


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        (lambda x: 1 / len(x), ()),
        (lambda x: 1 / x.shape[1], ()),
        (lambda x: math.sqrt(x.size(1)), ()),
        (lambda x: 1 / int(x.shape[1]), ("x.shape[1] == 5",)),
        (lambda x: sum(1 / (i + 1) for i in range(x.shape[1])), ("x.shape[1] == 5",)),
        (lambda x: 2.0 if x.shape[1] > 6 else 1.0, ("x.shape[1] <= 6",)),
        (lambda x: 2.0 if x.shape[1] == 1 else 1.0, ("x.shape[1] != 1",)),
    ],
)
def test_python_that_asks_for_a_length_is_followed_or_refused(asks, told) -> None:
    model = Asks(asks).eval()
    graph = ew.trace(model, rows(5), granularity="edge")
    assert graph.fixed == told
    small, masked = ew.prune(graph, graph.empty).eval(), ew.masked(graph, graph.empty).eval()
    refused = False
    for length in (5, 9, 1):
        x = rows(length)
        objective = ew.Objective([(x, torch.zeros(2))], lambda out, _: out.mean((1, 2)))
        with torch.no_grad():
            expected = model(x)
        try:
            found = [module(x).detach() for module in (small, masked)]
            outcome = next(Engine(graph, objective).evaluate([graph.empty]))
        except ObjectiveError:
            refused = True
            assert length != 5
            continue
        assert all(torch.allclose(y, expected, atol=1e-5) for y in found)
        assert outcome.evaluation.loss == pytest.approx(float(expected.mean()), abs=1e-5)
    assert refused == bool(told)


def test_a_lack_of_memory_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(module: Any, args: Any) -> Any:
        if len(args[0]) > 2 and args[0].device.type != "meta":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(module, args)

    for module in (agreement, probe):
        monkeypatch.setattr(module, "run", small)
    graph = ew.trace(Heads(), rows(5), granularity=("edge", "heads"))
    assert not graph.program.takes
    assert all(vertex.batched[:1] == (0,) for vertex in graph.vertices if vertex.shape)
    monkeypatch.undo()
    model = Heads()
    graph = ew.trace(model, rows(5), granularity=("edge", "heads"))
    assert torch.allclose(ew.prune(graph, graph.empty)(rows(5, 7)), model(rows(5, 7)), atol=1e-5)


def test_a_model_of_one_size_is_not_blamed_on_tracing() -> None:
    graph = ew.trace(Once(), torch.randn(2, 6, 8), granularity="edge")
    assert (graph.fixed, graph.program.sizes) == ((), ())


class OneBatch(nn.Module):
    """Takes four examples, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = x.view(4, 6)
        return self.b(y + torch.relu(self.a(y)))


def test_a_model_of_one_batch_is_told_and_refuses_others() -> None:
    graph = ew.trace(OneBatch(), torch.randn(4, 6))
    assert graph.fixed == ("batch size 4",)
    small, full = ew.prune(graph, graph.mask([0])), ew.masked(graph, graph.mask([0]))
    for module in (small, copy.deepcopy(small), full):
        assert module(torch.randn(4, 6)).shape == (4, 3)
        with pytest.raises(ObjectiveError, match=r"a batch of 8 examples, .* traced with 4"):
            module(torch.randn(8, 6))
    six = ew.Objective([(torch.randn(6, 6), torch.zeros(6).long())], F.cross_entropy)
    with pytest.raises(ObjectiveError, match="The search data hold a batch of 6 examples"):
        ew.Study(graph, six)
    four = (torch.randn(4, 6), torch.zeros(4).long())
    recovery = ew.Recovery("batchnorm", [four, four])
    with pytest.raises(ObjectiveError, match="which count as one batch, hold a batch of 8"):
        ew.Study(graph, ew.Objective([four], F.cross_entropy, recovery=recovery))


def test_a_second_batch_that_takes_too_much_memory_fixes_none() -> None:
    def full(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) > 4:
            raise torch.OutOfMemoryError("out of memory")

    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    model[0].register_forward_pre_hook(full)
    assert ew.trace(model, torch.randn(4, 6), granularity="raw").fixed == ()


def test_data_of_a_size_that_was_fixed_are_refused() -> None:
    graph = ew.trace(Decides(), image(16, 16), granularity="edge")
    objective = ew.Objective([(image(24, 24), torch.zeros(2))], lambda out, _: out.mean((1, 2, 3)))
    with pytest.raises(ObjectiveError, match="The search data hold inputs of shapes"):
        ew.Study(graph, objective)


def test_inputs_by_name_are_checked_too() -> None:
    graph = ew.trace(Decides(), (), {"x": image(16, 16)}, granularity="edge")
    with pytest.raises(ObjectiveError, match=r"x.shape\[3\] <= 20 must hold"):
        ew.prune(graph, graph.empty)(x=image(24, 24))


def test_a_pruned_network_that_is_traced_again_keeps_what_it_refuses() -> None:
    graph = ew.trace(Heads(), rows(5), granularity="heads")
    small = ew.prune(graph, graph.mask([0])).eval()
    again = ew.trace(small, rows(5), granularity="edge")
    smaller = ew.prune(again, again.empty).eval()
    expected, found = (_given(module, rows(9)) for module in (small, smaller))
    assert (expected is None) == (found is None)
    assert expected is None or torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(small(rows(5)), smaller(rows(5)), atol=1e-5)


def test_variations_are_other_sizes_of_the_same_axes() -> None:
    axes = axes_by_size((torch.zeros(2, 3, 64, 64), torch.zeros(4, 64), 5))
    assert axes == {3: [(0, 1)], 64: [(0, 2), (0, 3), (1, 1)]}
    apart, alike, twice = variations(64, axes[64])
    assert apart == {(0, 2): 128, (0, 3): 160, (1, 1): 96}
    assert set(alike.values()) == {96}
    assert set(twice.values()) == {128}
    assert [set(v.values()) for v in variations(5, [(0, 1)])] == [{7}, {10}]
