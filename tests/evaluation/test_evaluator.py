"""Law 6: the sharing engine measures what a masked model gives; failures are records."""

import gc
import random
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import edgewise as ew
import jobs
from edgewise.errors import ObjectiveError
from edgewise.evaluation import evaluator
from edgewise.evaluation.engine import EngineOptions
from edgewise.evaluation.evaluator import Engine
from edgewise.pruning.verify import compare, relative_difference
from edgewise.testing import random_mask
from zoo import build


def first(outputs, targets):
    """A loss for any model: the mean square of everything it gives."""
    tensors = (y for y in pytree.tree_leaves(outputs) if isinstance(y, torch.Tensor))
    leaves = [leaf for leaf in tensors if leaf.is_floating_point()]
    return sum(leaf.flatten(1).square().mean(1) for leaf in leaves)


@cache
def traced(name: str) -> tuple[ew.Graph, tuple]:
    model, args = build(name)
    return ew.trace(model, args, granularity=("edge", "layer")), args


@pytest.mark.parametrize("name", ["residual", "several", "siamese", "recommender"])
@given(seed=st.integers(0, 10**6))
def test_engine_equals_one_mask_at_a_time(name: str, seed: int) -> None:
    """Its losses over batches and chunks; engine/test_engine.py compares outputs of all models."""
    graph, args = traced(name)
    rng = random.Random(seed)
    masks = list({random_mask(graph, rng) for _ in range(6)})
    halves = [
        (tuple(a[:1] for a in args), torch.zeros(1)),
        (tuple(a[1:] for a in args), torch.zeros(1)),
    ]
    objective = ew.Objective(halves, loss=first)
    for outcome in Engine(graph, objective, EngineOptions(chunk=4)).evaluate(masks):
        record = outcome.evaluation
        assert record.ok, record.error
        full = ew.masked(graph, graph.mask(bits=record.mask)).eval()
        with torch.no_grad():
            expected = objective.measure([full(*x) for x, _ in halves], "search")
        assert record.loss == pytest.approx(expected.loss, rel=1e-5)


def test_recovery_is_that_of_train_mode_layer_by_layer() -> None:
    """Recovered statistics equal those a network in train mode takes of the calibration batch."""
    graph, objective = jobs.make()
    mask = graph.mask([0])
    outcome = next(iter(Engine(graph, objective).evaluate([mask], tensors=True)))
    small = ew.prune(graph, mask).eval()
    for name, module in small.named_modules():
        if f"{name}.running_mean" in outcome.tensors:
            module.train()
            module.momentum = 1.0
    (calibration,) = objective.recovery.batches
    small(*calibration)
    state = small.state_dict()
    assert len(outcome.tensors) == 8  # two blocks of two norms behind the removal
    for name, tensor in outcome.tensors.items():
        assert relative_difference(state[name], tensor) < 1e-3, name


def test_recovered_tensors_give_the_measured_loss() -> None:
    graph, objective = jobs.make()
    mask = graph.mask([1, 6])
    outcome = next(iter(Engine(graph, objective).evaluate([mask], "report", tensors=True)))
    small = ew.prune(graph, mask, tensors=outcome.tensors).eval()
    x, _ = objective.splits["report"][0]
    with torch.no_grad():
        again = objective.measure([small(*x)], "report")
    assert again.loss == pytest.approx(outcome.evaluation.loss, rel=1e-5)
    plain = objective.measure([ew.prune(graph, mask).eval()(*x)], "report")
    assert plain.loss != pytest.approx(again.loss, rel=1e-3)
    worst, allowed = compare(ew.masked(graph, mask, outcome.tensors), small, x)
    assert worst <= allowed


def test_nothing_removed_is_measured_without_recovery() -> None:
    graph, objective = jobs.make()
    outcome = next(iter(Engine(graph, objective).evaluate([graph.empty], tensors=True)))
    assert not outcome.tensors


@pytest.mark.parametrize("recovery", ["none", "batchnorm"])
def test_a_lower_precision_is_for_the_search_split_alone(recovery: str) -> None:
    """Losses there are near, those of finalists are what they are without."""
    (graph, exact), (_, lower) = (
        jobs.make(recovery=recovery, precision=precision) for precision in (None, "bfloat16")
    )
    masks = [graph.empty, graph.mask([0]), graph.mask([2])]
    found = {}
    for split in ("search", "search:1000", "verify"):
        for objective in (exact, lower):
            outcomes = Engine(graph, objective).evaluate(masks, split)
            found[split, objective.precision] = torch.tensor(
                [o.evaluation.loss for o in sorted(outcomes, key=lambda o: o.evaluation.mask)]
            )
    for split in ("search", "search:1000"):
        apart = (found[split, "bfloat16"] - found[split, None]).abs()
        assert 0 < apart.max() < 0.02
    assert torch.equal(found["verify", "bfloat16"], found["verify", None])
    assert exact.fingerprint != lower.fingerprint
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(ObjectiveError, match="bfloat16"):
        jobs.make(precision="float8")


def test_failures_are_records_and_end_nothing() -> None:
    graph, _ = jobs.make()
    seen = []

    def moody(outputs, targets):
        seen.append(1)
        if len(seen) == 3:
            raise ValueError("no mood")
        if len(seen) == 5:
            return outputs.mean() * float("nan")
        if len(seen) == 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return outputs.square().mean()

    x, y = torch.randn(4, 3, 8, 8), torch.zeros(4)
    objective = ew.Objective([(x, y)], loss=moody)
    masks = [graph.mask([u]) for u in range(8)]
    found = [o.evaluation for o in Engine(graph, objective).evaluate(masks)]
    assert [e.status for e in found] == [
        "ok", "ok", "failed", "ok", "nan", "ok", "out of memory", "ok",
    ]  # fmt: skip
    assert "no mood" in (found[2].error or "")
    assert all(e.loss is None for e in found if not e.ok)


def test_a_disconnecting_mask_is_a_failed_record() -> None:
    graph, objective = jobs.make()
    names = ["blocks.1.first.0..blocks.1.norm", "blocks.0.relu->blocks.1.add"]
    outcome = next(iter(Engine(graph, objective).evaluate([graph.mask(names)])))
    assert outcome.evaluation.status == "failed"
    assert "removes every path" in (outcome.evaluation.error or "")


def test_masks_share_what_they_have_in_common() -> None:
    """Leave-one-out of three blocks runs each layer less often than mask by mask."""
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    count = []
    objective = ew.Objective([(args, torch.zeros(2))], loss=first)
    engine = Engine(graph, objective)
    engine.pace = 1e-9  # known, so that all masks share
    handle = graph.program.module.stem.get_submodule("0").register_forward_hook(
        lambda *_: count.append(1)
    )
    list(engine.evaluate([graph.mask([u]) for u in range(len(graph.units))]))
    handle.remove()
    assert len(count) == 1


@pytest.mark.parametrize(
    ("first", "period", "sizes"),
    [(60.0, 60.0, [1, 6, 6]), (1e-12, 1e-12, [1, 4, 4, 4]), (1e-12, 60.0, [1] * 13)],
)
def test_masks_that_take_long_come_a_few_at_a_time(
    first: float, period: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And at the beginning one at a time, so that it is soon seen to go on."""
    monkeypatch.setattr(evaluator, "FIRST", first)
    monkeypatch.setattr(evaluator, "PERIOD", period)
    graph, objective = jobs.make(recovery="none")
    masks = [graph.mask([unit]) for unit in range(12)]
    engine, seen = Engine(graph, objective, EngineOptions(chunk=6)), []
    whole = engine._evaluate_chunk
    monkeypatch.setattr(
        engine, "_evaluate_chunk", lambda m, *a: seen.append(len(m)) or whole(m, *a)
    )
    list(engine.evaluate([graph.empty]))  # as every search begins
    found = list(engine.evaluate(masks))
    assert (seen, len(found)) == (sizes, len(masks))


def test_collections_are_as_before_after_an_evaluation() -> None:
    graph, objective = jobs.make(recovery="none")
    for before in (gc.unfreeze, gc.freeze):
        before()
        frozen = gc.get_freeze_count() > 0
        list(Engine(graph, objective).evaluate([graph.empty]))
        assert (gc.get_freeze_count() > 0) == frozen
    gc.unfreeze()
