"""Linear recovery: what is fitted, to what, and that the fit is that of least squares."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import edgewise as ew
import jobs
from edgewise.evaluation.engine.refit import chosen, patches, sampled
from edgewise.evaluation.evaluator import Engine, Outcome
from edgewise.testing import random_mask
from zoo import WIDTHS, ZOO, build, traced

KINDS = ("edge", "layer", "hidden", "heads", "channels")


def recovered(graph: ew.Graph, mask: ew.Mask, batches, kind: str = "linear") -> Outcome:
    """The outcome on the calibration data, with its tensors; the loss is the mean square of what
    the unpruned network gives otherwise."""
    with torch.no_grad():
        pairs = [((x,), graph.program.module(x)) for x in batches]
    objective = ew.Objective(pairs, F.mse_loss, recovery=ew.Recovery(kind, batches))
    (outcome,) = Engine(graph, objective).evaluate([mask], tensors=True)
    assert outcome.evaluation.ok, outcome.evaluation.error
    return outcome


def loss(graph: ew.Graph, mask: ew.Mask, batches, kind: str) -> float:
    value = recovered(graph, mask, batches, kind).evaluation.loss
    assert value is not None
    return value


class Stream(nn.Module):
    """A residual stream without norms: each branch a hidden layer and one that gives it back."""

    def __init__(self, blocks: int = 3, nonlinear: nn.Module | None = None) -> None:
        super().__init__()
        make = lambda: nn.Sequential(  # noqa: E731
            nn.Linear(6, 12), nonlinear or nn.Tanh(), nn.Dropout(0.1), nn.Linear(12, 6)
        )
        self.branches = nn.ModuleList(make() for _ in range(blocks))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for branch in self.branches:
            x = x + branch(x)
        return self.head(x)


def stream(nonlinear: nn.Module | None = None, **options) -> tuple[ew.Graph, list]:
    torch.manual_seed(0)
    model = Stream(nonlinear=nonlinear).eval()
    batches = [torch.randn(50, 6) for _ in range(4)]
    return ew.trace(model, (batches[0],), **options), batches


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=3)
@given(seed=st.integers(0, 10**6))
def test_pruned_is_masked_with_fitted_weights(name: str, seed: int) -> None:
    """Law 2 on recovered networks; `ew.prune` itself refuses what differs."""
    graph, args = traced(name, WIDTHS, torch.float64), build(name, dtype=torch.float64)[1]
    noise = torch.Generator().manual_seed(seed)
    mask = random_mask(graph, random.Random(seed))

    def another(x):
        kind = x.is_floating_point()
        return x + torch.randn(x.shape, generator=noise, dtype=x.dtype) if kind else x

    calibration = [(tuple(map(another, args)), None) for _ in range(16)]
    recovery = ew.Recovery("linear", calibration)
    objective = ew.Objective([(args, None)], lambda o, t: torch.zeros(()), recovery=recovery)
    (outcome,) = Engine(graph, objective).evaluate([mask], tensors=True)
    assert outcome.evaluation.ok, outcome.evaluation.error
    ew.prune(graph, mask, tensors=outcome.tensors)


def test_nothing_removed_is_left_alone() -> None:
    graph, batches = stream()
    outcome = recovered(graph, graph.empty, batches)
    assert outcome.tensors == {}
    assert outcome.evaluation.loss == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("branch", [1, 2])
def test_what_is_linear_in_the_layer_before_is_taken_over_whole(branch: int) -> None:
    """Without non-linearities a removed branch is a linear map of what the one before reads."""
    graph, batches = stream(nn.Identity())
    (unit,) = [u for u in graph.units if u.kind == "edge" and f"branches.{branch}.0." in u.name]
    mask = graph.mask([unit.name])
    without = loss(graph, mask, batches, "none")
    # the ridge keeps a little from the exact solution
    assert loss(graph, mask, batches, "linear") < 0.01 * without


def test_layers_ahead_of_a_removed_branch_and_behind_it_are_fitted_and_the_last_is_not() -> None:
    graph, batches = stream()
    mask = graph.mask([u.name for u in graph.units if u.name.startswith("branches.1.0")][:1])
    names = set(recovered(graph, mask, batches).tensors)
    layers = ("branches.0.3", "branches.2.0", "branches.2.3")
    assert names == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert loss(graph, mask, batches, "linear") < 0.6 * loss(graph, mask, batches, "none")


def test_a_last_layer_that_lost_inputs_is_fitted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    batches = [torch.randn(100, 6) for _ in range(3)]
    graph = ew.trace(model, (batches[0],), granularity=("hidden",))
    mask = graph.mask(range(4))
    outcome = recovered(graph, mask, batches)
    assert set(outcome.tensors) == {"2.weight", "2.bias"}
    assert outcome.tensors["2.weight"].shape[0] == 3
    assert outcome.tensors["2.weight"].shape[1] < 16
    assert loss(graph, mask, batches, "linear") < 0.5 * loss(graph, mask, batches, "none")


def test_a_norm_behind_a_fitted_layer_keeps_its_variance_and_takes_the_bias() -> None:
    graph, args = (lambda m, a: (ew.trace(m, a, granularity=("hidden",)), a))(*build("residual"))
    batches = [torch.randn(40, *args[0].shape[1:]) for _ in range(2)]
    mask = graph.mask([graph.units[0].name])
    names = recovered(graph, mask, batches).tensors
    fits = {name.rpartition(".")[0] for name in names if name.endswith("weight")}
    assert fits
    variances = {name for name in names if name.endswith("running_var")}
    means = {name for name in names if name.endswith("running_mean")}
    assert len(means - {v.replace("var", "mean") for v in variances}) == len(fits)


def test_the_mean_of_what_a_norm_gives_is_that_of_the_unpruned_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5), nn.BatchNorm1d(5)).eval()
    nn.init.normal_(model[3].running_mean)
    x = torch.randn(100, 6) + 1
    graph = ew.trace(model, (x,), granularity=("hidden",))
    mask = graph.mask(range(4))
    small = ew.prune(graph, mask, tensors=recovered(graph, mask, [x]).tensors)
    with torch.no_grad():
        torch.testing.assert_close(small(x).mean(0), model(x).mean(0))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
        nn.Conv1d(3, 5, 4, stride=3, padding=2),
        nn.Conv3d(3, 5, 2, stride=2),
        nn.Linear(6, 5),
    ],
    ids=str,
)
def test_patches_are_what_a_layer_reads(layer: nn.Module) -> None:
    dims = layer.weight.ndim - 2
    x = torch.randn(4, 3, *(9, 8, 7)[:dims]) if dims else torch.randn(4, 7, 6)
    axis = 1 if dims else 2
    with torch.no_grad():
        out = layer(x)
        at = chosen(4, out.numel() // 20, 2.5)
        sizes = out.shape[2:] if dims else out.shape[1:-1]
        found = F.linear(patches(layer, x, sizes, at), layer.weight.flatten(1), layer.bias)
    assert len(found) == 12
    torch.testing.assert_close(found, sampled(out, axis, at))


@pytest.mark.parametrize(("density", "each"), [(0.3, 1), (1.0, 1), (2.5, 3), (100.0, 7)])
def test_chosen_rows_are_distinct_and_always_the_same(density: float, each: int) -> None:
    rows = chosen(10, 7, density)
    assert len(set(rows.tolist())) == len(rows) == 10 * each
    assert torch.equal(rows, chosen(10, 7, density))


def test_a_recovered_plan_travels(tmp_path) -> None:
    """The fitted weights of a plan go into the pruned model, also after saving and loading."""
    graph, objective = jobs.make(recovery="linear")
    study = ew.Study(graph, objective)
    study.run(evaluations=len(graph.units) + 5, budget=ew.Budget(macs=0.7))
    plan = study.plan()
    assert plan.recovery == "linear"
    assert any(name.endswith("weight") for name in plan.tensors)
    loaded = ew.Plan.load(plan.save(tmp_path / "plan.json"))
    small = ew.prune(graph, loaded).eval()
    with torch.no_grad():
        outputs = [small(*inputs) for inputs, _ in objective.splits["search"]]
    measured = objective.measure(outputs, "search").loss
    assert measured == pytest.approx(plan.measured["search"].loss, rel=1e-4)
