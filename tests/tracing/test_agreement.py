"""A traced program that differs from its model is refused, whatever the size of the outputs."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.errors import ObjectiveError, TraceError
from edgewise.evaluation.engine import EngineOptions
from edgewise.evaluation.engine.pieces import choose
from edgewise.evaluation.evaluator import Engine
from edgewise.tracing.agreement import compare_outputs, drawn, same


@dataclass
class Answer:
    logits: Tensor
    hidden: list


def refused(expected: object, found: object, match: str) -> None:
    with pytest.raises(TraceError, match=match):
        compare_outputs(expected, found, nn.Identity(), "the example inputs")


def accepted(expected: object, found: object) -> None:
    compare_outputs(expected, found, nn.Identity(), "the example inputs")


def test_many_classes() -> None:
    logits = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    expected = logits.softmax(1)
    refused(expected, (logits * 0.9).softmax(1), "output differs by up to .* largest entry is")
    accepted(expected, expected * (1 + 1e-6))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e20])
def test_differences_count_by_the_outputs_own_scale(scale: float) -> None:
    value = torch.linspace(-1, 1, 7) * scale
    refused(value, value + 1e-3 * scale, "on the example inputs: output differs by up to")
    accepted(value, value + 1e-6 * scale)


def test_each_output_has_its_own_scale_and_name() -> None:
    large, small = torch.ones(3) * 1e6, torch.ones(3) * 1e-6
    refused({"a": [large, small]}, {"a": [large, small * 2]}, r"output\['a'\]\[1\] differs")
    refused(Answer(large, [small]), Answer(large, [-small]), r"output\.hidden\[0\] differs")


@pytest.mark.parametrize(
    ("dtype", "passes", "fails"),
    [
        (torch.float64, 1e-12, 1e-7),
        (torch.float32, 1e-6, 1e-3),
        (torch.float16, 1e-3, 5e-2),
        (torch.bfloat16, 5e-3, 5e-2),
        (torch.complex64, 1e-6, 1e-3),
    ],
)
def test_precision_decides(dtype: torch.dtype, passes: float, fails: float) -> None:
    value = torch.ones(3, dtype=dtype)
    accepted(value, value * (1 + passes))
    refused(value, value * (1 + fails), "differs")


def test_what_is_no_number_of_floating_point_must_be_equal() -> None:
    refused(torch.tensor([True, False]), torch.tensor([True, True]), "differs in 1 of 2 entries")
    refused(torch.tensor([3, 4]), torch.tensor([3, 5]), "differs in 1 of 2 entries")
    refused((torch.ones(2), 3), (torch.ones(2), 4), r"output\[1\] is 4, not 3")
    refused((torch.ones(2), True), (torch.ones(2), False), r"output\[1\] is False, not True")
    refused(torch.ones(2), torch.ones(2).double(), "float64, not .* of torch.float32")
    refused(torch.ones(2), torch.ones(2, 1), r"is \(2, 1\)")
    accepted([1, math.nan, None, "a"], [1, math.nan, None, "a"])


def test_entries_that_are_not_finite() -> None:
    inf, nan = math.inf, math.nan
    value = torch.tensor([1.0, nan, inf, -inf])
    accepted(value, value.clone())
    for other in ([1.0, 2.0, inf, -inf], [1.0, nan, inf, inf], [nan, nan, inf, -inf]):
        refused(value, torch.tensor(other), "infinite or undefined")
    refused(value, torch.tensor([1.1, nan, inf, -inf]), "largest entry is 1")


def test_zeros_must_be_zeros() -> None:
    refused(torch.zeros(3), torch.full((3,), 1e-9), "largest entry is 0")
    accepted(torch.zeros(3), torch.zeros(3))
    accepted(torch.zeros(0), torch.zeros(0))


def test_inputs_are_drawn_like_the_example() -> None:
    example = {
        "image": torch.full((2, 4000), 7.0) + torch.randn(2, 4000),
        "flat": torch.ones(2, 4000),
        "ids": torch.randint(3, 9, (2, 4000)),
        "mask": torch.ones(2, 4000, dtype=torch.bool),
        "table": torch.randn(5, 3).double(),
        "scale": 3,
    }
    state = torch.get_rng_state()
    found = drawn(example, 2, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert found["image"].shape == (6, 4000)
    assert abs(found["image"].mean() - 7) < 0.1
    assert abs(found["image"].std() - 1) < 0.1
    assert abs(found["flat"].std() - 1) < 0.1, "an example without spread says nothing of it"
    assert found["ids"].unique().tolist() == list(range(3, 9))
    assert found["mask"].unique().tolist() == [False, True]
    assert found["table"].shape == (5, 3)
    assert found["table"].dtype == torch.float64
    assert found["scale"] == 3


class Two(nn.Module):
    def __init__(self, forward=None) -> None:
        super().__init__()
        self.a, self.b, self.h = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.body = forward

    def forward(self, x: Tensor) -> object:
        return self.body(self, x)


UNSTEADY = {
    "small outputs": lambda self, x: (x + self.a(x)) * 1e-6 * torch.rand(6),
    "zeros hide it": lambda self, x: self.a(x) + x * torch.rand(6),
    "many classes": lambda self, x: F.pad(self.a(x) + x * torch.rand(6), (0, 200_000)).softmax(1),
    "booleans": lambda self, x: (self.a(x) + x, x + torch.randn(6) > 0),
    "second output": lambda self, x: (self.a(x) + x, [self.b(x) * 1e-9 * torch.rand(6)]),
}


@pytest.mark.parametrize("kind", UNSTEADY)
def test_a_network_that_draws_numbers_is_refused(kind: str) -> None:
    model = Two(UNSTEADY[kind])
    for frontend in ("torch.fx", "torch.export"):
        with pytest.raises(TraceError, match="gives other outputs than the model"):
            ew.trace(model, torch.zeros(2, 6), frontend=frontend)


def test_a_model_that_takes_its_example_only_is_compared_on_it() -> None:
    class Positive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.register_forward_pre_hook(self.ask)

        @staticmethod
        def ask(module: nn.Module, args: tuple) -> None:
            if not isinstance(args[0], torch.fx.Proxy) and (args[0] != 1).any():
                raise ValueError("only ones")

        def forward(self, x: Tensor) -> Tensor:
            return x + self.a(x)

    graph = ew.trace(Positive(), torch.ones(2, 6))
    assert not graph.program.takes


@pytest.mark.parametrize("frontend", ["torch.fx", "torch.export"])
def test_one_tensor_given_twice_is_two_inputs(frontend: str) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + self.a(x) - self.b(y)

    model, same = Pair(), torch.randn(2, 6)
    graph = ew.trace(model, (same, same), frontend=frontend)
    x, y = torch.randn(3, 6), torch.randn(3, 6)
    torch.testing.assert_close(ew.masked(graph, graph.empty)(x, y), model(x, y))


def test_random_numbers_and_modes_are_left_alone() -> None:
    model = Two(lambda self, x: x + F.dropout(self.a(x), 0.5, self.training)).train()
    model.a.eval()
    x, state = torch.randn(2, 6), torch.get_rng_state()
    ew.trace(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.training, model.a.training, model.b.training) == (True, False, True)


def asking(size) -> nn.Module:
    def forward(self, x):
        x = x + F.relu(self.a(x)) * size(x)
        return self.h(x + F.relu(self.b(x)))

    return Two(forward)


FIXED = {
    "int": (4, lambda x: 1 / int(x.shape[0])),
    "more than 8": (4, lambda x: 3.0 if x.shape[0] > 8 else 1.0),
    "more than 1000": (4, lambda x: 3.0 if x.shape[0] > 1000 else 1.0),
    "not more than 8": (16, lambda x: 3.0 if x.shape[0] > 8 else 1.0),
}


def losses(x: Tensor, *, size: int) -> ew.Objective:
    batches = [(part, torch.zeros(len(part))) for part in x.split(size)]
    return ew.Objective(batches, loss=lambda out, target: out.square().mean(1) - target)


@pytest.mark.parametrize("kind", FIXED)
def test_a_batch_that_python_asked_for_is_right_or_refused(kind: str) -> None:
    batch, size = FIXED[kind]
    model = asking(size).eval()
    graph = ew.trace(model, torch.randn(batch, 6))
    empty, many = graph.empty, torch.randn(48, 6)
    assert fixed(graph)
    assert choose(graph, EngineOptions(piece=1), [many]).examples is None
    for other in (batch, 1, 2, 12, 24):
        parts = many.split(other)
        try:
            masked = torch.cat([ew.masked(graph, empty).eval()(part) for part in parts])
            small = torch.cat([ew.prune(graph, empty).eval()(part) for part in parts])
            outcome = next(Engine(graph, losses(many, size=other)).evaluate([empty]))
        except ObjectiveError as error:
            message = str(error)
        else:
            with torch.no_grad():
                expected = torch.cat([model(part) for part in parts])
            torch.testing.assert_close(masked, expected)
            torch.testing.assert_close(small, expected)
            loss = float(expected.square().mean())
            assert outcome.evaluation.loss == pytest.approx(loss, rel=1e-5)
            continue
        assert other != batch
        assert f"of {other} examples" in message
        assert f"traced with {batch}" in message


def test_a_decision_by_a_batch_of_one_is_refused() -> None:
    """torch.export takes one example for two, since it would keep a one as a constant."""
    with pytest.raises(TraceError, match="on the example inputs: output differs"):
        ew.trace(asking(lambda x: 3.0 if x.shape[0] == 1 else 1.0), torch.randn(1, 6))


def fixed(graph: ew.Graph) -> bool:
    return bool(graph.program.takes)


@pytest.mark.parametrize(
    "size",
    [
        lambda x: math.sqrt(x.shape[0]),
        lambda x: 1 / x.shape[0],
        lambda x: 1 / len(x),
        lambda x: 1.0,
    ],
)
def test_a_size_that_stays_in_the_graph_is_free(size) -> None:
    model = asking(size).eval()
    graph = ew.trace(model, torch.randn(4, 6))
    assert not fixed(graph)
    x = torch.randn(7, 6)
    torch.testing.assert_close(ew.prune(graph, graph.empty).eval()(x), model(x))


@pytest.fixture(scope="module")
def frozen() -> ew.Graph:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ew.trace(asking(lambda x: 1 / int(x.shape[0])), torch.randn(4, 6))


def batches(*sizes: int) -> list:
    return [(torch.randn(size, 6), torch.zeros(size)) for size in sizes]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("search", {"loader": batches(4, 3)}),
        ("verify", {"loader": batches(4), "verify": batches(4, 4, 2)}),
        ("report", {"loader": batches(4), "report": batches(5)}),
        (
            "calibration",
            {
                "loader": batches(4),
                "recovery": ew.Recovery("batchnorm", [torch.randn(4, 6), torch.randn(4, 6)]),
            },
        ),
    ],
)
def test_every_batch_of_a_study_is_checked(frozen: ew.Graph, name: str, given: dict) -> None:
    objective = ew.Objective(loss=lambda out, target: out.square().mean(1) - target, **given)
    with pytest.raises(ObjectiveError, match=rf"The {name} data.* hold a batch of \d examples"):
        Engine(frozen, objective)


def test_a_pruned_network_that_is_traced_again_keeps_its_batch(frozen: ew.Graph) -> None:
    small = ew.prune(frozen, frozen.mask([0]))
    again = ew.trace(small, torch.randn(4, 6), granularity="raw")
    assert fixed(again)
    with pytest.raises(ObjectiveError, match="traced with 4"):
        ew.prune(again, again.empty)(torch.randn(8, 6))


def test_tensors_are_the_same_where_both_are_no_number_and_nowhere_else() -> None:
    nan, inf = float("nan"), float("inf")
    assert same(torch.tensor([1.0, nan, inf]), torch.tensor([1.0, nan, inf]))
    assert not same(torch.tensor([0.0]), torch.tensor([nan]))
    assert not same(torch.tensor([torch.finfo().max]), torch.tensor([inf]))
    assert same(torch.tensor([True]), torch.tensor([True]))
    assert not same(torch.tensor([1]), torch.tensor([1.0]))
