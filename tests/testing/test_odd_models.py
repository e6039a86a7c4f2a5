"""Models that once broke a law: each names the mistake it guards against."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.evaluation.evaluator import Engine
from edgewise.testing import check_laws


class Branches(nn.Module):
    """Three convolutions, concatenated, through `middle`, into a linear layer."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(3))
        self.middle, self.head = middle, nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(torch.cat([part(x) for part in self.parts], 1))
        return self.head(y.amax((2, 3)))


class ChannelsLast(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Clamp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.full((12, 1, 1), -0.3))
        self.register_buffer("high", torch.linspace(0.1, 1, 12).reshape(12, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.low, self.high)


class Spread(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.var(1, True, True)) + x.mean(axis=1, keepdims=True)


class Gate(nn.Module):
    """A product of floats and booleans."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0) + x


class Shared(nn.Module):
    """A norm without parameters called twice, once on a tensor that loses channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(12, affine=False), nn.Conv2d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(x)))


class Reverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mT.mT.unflatten(2, (4, 4)) + x


MIDDLES = {
    "group_norm_without_affine": lambda: nn.GroupNorm(2, 12, affine=False),
    "layer_norm_without_affine": lambda: ChannelsLast(nn.LayerNorm(12, elementwise_affine=False)),
    "rms_norm_without_affine": lambda: ChannelsLast(nn.RMSNorm(12, elementwise_affine=False)),
    "layer_norm": lambda: ChannelsLast(nn.LayerNorm(12)),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(12, 12, 1)),
    "clamp_by_channel": Clamp,
    "variance_over_channels": Spread,
    "boolean_gate": Gate,
    "norm_called_twice": Shared,
    "transposes": Reverse,
}


class TwoSizes(nn.Module):
    """One norm without weights, called where channels may be gone and where they are not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, elementwise_affine=False)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(torch.cat([self.first(x), x], 1))
        return self.norm(y + self.second(y))


def test_a_norm_without_weights_has_one_size() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        graph = check_laws(TwoSizes().eval(), (torch.randn(2, 4),), masks=8)
    ew.prune(graph, graph.mask([unit for unit in graph.unit_index if "first" in unit][:1]))


@pytest.mark.parametrize("name", MIDDLES)
def test_laws_hold(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        check_laws(Branches(MIDDLES[name]()).eval(), (torch.randn(2, 3, 4, 4),), masks=4)


def assert_engine_is_masked(model: nn.Module, x: Tensor) -> None:
    graph = ew.trace(model.eval(), (x,))
    objective = ew.Objective([(x, torch.zeros(len(x)))], loss=lambda o, t: o.square().mean(1))
    masks = [graph.mask([u]) for u in range(len(graph.units))]
    for outcome in Engine(graph, objective).evaluate(masks):
        mask = graph.mask(bits=outcome.evaluation.mask)
        with torch.no_grad():
            expected = float(ew.masked(graph, mask)(x).square().mean())
        assert outcome.evaluation.loss == pytest.approx(expected, rel=1e-5)


def test_the_engine_keeps_cut_norms_apart() -> None:
    """Groups that different masks leave must not be mixed up."""
    assert_engine_is_masked(
        Branches(MIDDLES["group_norm_without_affine"]()), torch.randn(4, 3, 4, 4)
    )


def test_the_engine_looks_into_slices() -> None:
    """Two slices whose bounds are computed differently are two computations."""

    class Slices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.u, self.v = (nn.Conv2d(3, 4, 1) for _ in range(3))
            self.wide, self.head = nn.Linear(8, 5), nn.Linear(4, 5)
            self.token = nn.Parameter(torch.randn(1, 5))

        def forward(self, x: Tensor) -> Tensor:
            a, q = self.a(x), torch.cat([self.u(x), self.v(x)], 1)
            out = self.wide(q.mean((2, 3))) + self.token.expand(q.shape[0], -1)
            n, m = x.size(1), x.size(2)
            return out + self.head(a[:, :, :n].mean((2, 3))) * self.head(a[:, :, :m].amax((2, 3)))

    assert_engine_is_masked(Slices(), torch.randn(4, 3, 6, 6))


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclasses.dataclass
class Result:
    scores: Tensor
    rest: Tensor


@pytest.mark.parametrize("kind", [Pair, Result])
def test_outputs_may_be_namedtuples_and_dataclasses(kind: type) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> object:
            y = x + self.a(x)
            return kind(y, y + self.b(y))

    graph = ew.trace(Model(), (torch.randn(2, 4),), granularity="edge")
    assert len(graph.units) == 4
    for unit in range(4):
        small = ew.prune(graph, graph.mask([unit]))
        assert isinstance(small(torch.randn(3, 4)), kind)


def test_optional_inputs_are_bound_by_name() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x, mask=None, scale=1.0, bias=None):
            y = self.a(x) if mask is None else self.a(x) * mask
            return x + y * scale + bias

    x, bias = torch.randn(2, 4), torch.randn(2, 4)
    graph = ew.trace(Model(), (x, None), {"bias": bias, "scale": 2.0}, granularity="edge")
    small = ew.prune(graph, graph.mask(["a..mul"]))
    assert torch.allclose(small(x, None, 2.0, bias), x + bias)
    assert torch.allclose(small(x, bias=bias), x + bias)


def test_an_input_that_the_model_overwrites_is_left_alone() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            x -= 0.5
            return x + self.a(x)

    x = torch.randn(2, 4)
    before = x.clone()
    graph = ew.trace(Model(), (x,))
    ew.prune(graph, graph.mask([0]))
    assert torch.equal(x, before)


def test_the_batch_is_free_beside_an_input_without_one() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(6, 4)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            y = torch.cat([self.a(x), self.b(x)], 1)
            return self.out(y.reshape(x.shape[0], 6)) + table.mean(0)

    graph = ew.trace(Model(), (torch.randn(2, 4), torch.randn(5, 4)), granularity="edge")
    small = ew.prune(graph, graph.mask(["a"]))
    assert small(torch.randn(7, 4), torch.randn(5, 4)).shape == (7, 4)


def test_recurrent_layers_are_counted() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.lstm(x)[0]

    graph = ew.trace(Model(), (torch.randn(2, 6, 4),), granularity="edge")
    assert ew.cost(graph).macs == 6 * 4 * 4 * (4 + 4)


def test_advice_for_an_unknown_operator_works_as_written() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.a(x).heaviside(torch.zeros(1)) * F.pairwise_distance(x, x, keepdim=True)

    with pytest.raises(ew.errors.UnknownOperatorError) as caught:
        ew.trace(Model(), (torch.randn(2, 4),))
    assert "ew.register('Tensor.heaviside', ew.Rule(" in str(caught.value)
