"""Latency as a cost: what is predicted, refused, corrected and chosen. No test reads a clock."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import edgewise as ew
import jobs
from edgewise.errors import BudgetError, LatencyError
from edgewise.graph.liveness import liveness
from edgewise.latency import measurement
from edgewise.latency.stopwatch import clock_of
from edgewise.search import Space
from edgewise.search.cost_estimate import CostEstimate
from edgewise.testing import random_mask
from meters import Formula
from zoo import ZOO, build

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from resnet_cifar import ResNet

KINDS = ("edge", "hidden", "heads", "channels")


@cache
def resnet() -> ew.Graph:
    model = ResNet(2).eval()
    return ew.trace(model, (torch.randn(1, 3, 8, 8),), granularity=("edge", "hidden"), slices=4)


def formula(graph: ew.Graph, **options: object) -> Formula:
    return Formula(graph.program.args, **options)


@cache
def table(bend: float = 1.0) -> measurement.LatencyTable:
    graph = resnet()
    return measurement.measure(graph, threads=1, meter=formula(graph, bend=bend))


def seconds_of(graph: ew.Graph, mask: ew.Mask) -> float:
    return float(formula(graph).networks([ew.prune(graph, mask)])[0, 0])


def test_other_masks_are_predicted_from_operators() -> None:
    graph, rng = resnet(), random.Random(5)
    times, seen = table().times(graph), {r.bits for r in table().networks}
    masks = [graph.nest(random_mask(graph, rng)) for _ in range(12)]
    masks = [m for m in masks if str(m) not in seen]
    assert len(masks) > 8
    for mask in masks:
        predicted = times.seconds(liveness(graph, mask))
        assert predicted == pytest.approx(seconds_of(graph, mask), rel=0.05)
    assert times.seconds(liveness(graph, graph.empty)) == table().unpruned


def test_what_is_gone_takes_no_time() -> None:
    graph = resnet()
    times = table().times(graph)
    branch = next(u for u, unit in enumerate(graph.units) if unit.cost.macs)
    rest = liveness(graph, graph.mask([branch]))
    dead = {i for i, flow in rest.changed.items() if not rest.runs(i)}
    left = {index: after for index, _, after in times.changes(rest)}
    assert dead
    assert {left[index] for index in dead} == {0.0}


def test_a_machine_that_changes_its_speed_gives_the_same_table() -> None:
    graph = resnet()
    meter = formula(graph, speeds=(1.0, 3.0, 0.5, 1.7))
    busy = measurement.measure(graph, threads=1, meter=meter)
    assert set(meter.seen) == {2}
    first = 3.0  # of the first call, to which the table refers
    assert np.array(busy.parts) == pytest.approx(np.array(table().parts) * first)
    assert [r.median for r in busy.networks] == pytest.approx([r.median for r in table().networks])


@cache
def zoo(name: str) -> tuple[ew.Graph, measurement.LatencyTable]:
    model, args = build(name)
    graph = ew.trace(model, args, granularity=KINDS, slices=3)
    return graph, measurement.measure(graph, threads=1, networks=5, meter=formula(graph))


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 10**6))
def test_removing_more_never_raises_the_latency(name: str, seed: int) -> None:
    graph, found = zoo(name)
    times = found.times(graph)
    mask = random_mask(graph, random.Random(seed))
    base = times.seconds(liveness(graph, mask))
    assert base <= found.unpruned * (1 + 1e-9)
    for unit in range(len(graph.units)):
        rest = liveness(graph, mask.with_removed(unit))
        if rest.connected:
            assert times.seconds(rest) <= base * (1 + 1e-9)


def test_measured_masks_reach_from_little_to_much() -> None:
    graph = resnet()
    masks = measurement.spread_masks(graph, 8, np.random.default_rng(0))
    left = [ew.cost(graph, mask).macs / ew.cost(graph).macs for mask in masks]
    assert all(liveness(graph, mask).connected for mask in masks)
    assert all(graph.nest(mask) == mask for mask in masks)
    assert min(left) < 0.3
    assert max(left) > 0.8
    plain = graph.select(lambda unit: unit.kind == "edge")
    assert measurement.spread_masks(plain, 4, np.random.default_rng(0))


def test_estimates_know_latency() -> None:
    graph, times = resnet(), table().times(resnet())
    space = Space(graph, ew.Budget(latency=0.7), times=times)
    estimate = CostEstimate(graph, times)
    rng = np.random.default_rng(0)
    for _ in range(5):
        mask = space.shrink([int(u) for u in rng.permutation(space.free)])
        cost = space.cost(mask)
        assert cost is not None
        assert cost.latency <= 0.7 * space.unpruned.latency
        near = estimate([mask], mask, cost)[0]
        assert near[-1] == pytest.approx(cost.latency)
        again = estimate([mask])[0][-1]
        assert again == pytest.approx(cost.latency, rel=0.1)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = table().save(tmp_path / "latency.json")
    again = measurement.LatencyTable.load(path)
    assert again == table()
    assert again.check(resnet(), batch=1, threads=1, device="cpu") is again


def test_tables_of_something_else_are_refused() -> None:
    graph, found = resnet(), table()
    other = graph.select(lambda unit: unit.kind == "edge")
    with pytest.raises(LatencyError, match="another model or other units"):
        found.check(other)
    for name, value in {
        "machine": "Abacus", "device": "cuda", "batch": 8, "threads": 9,
        "dtype": "float16", "torch": "1.0",
    }.items():  # fmt: skip
        target = replace(found.target, **{name: value})
        if name == "device":
            continue  # there may be one
        here = {"batch": 1, "threads": 1, "device": "cpu"}
        with pytest.raises(LatencyError, match=rf"{name}.*{value}, but this is .*Measure it again"):
            replace(found, target=target).check(graph, **here)
    half = ew.trace(ResNet(2).eval().double(), (torch.randn(1, 3, 8, 8).double(),),
                    granularity=("edge", "hidden"), slices=4)  # fmt: skip
    if half.fingerprint == graph.fingerprint:  # random weights may order channels differently
        with pytest.raises(LatencyError, match="dtype"):
            found.check(half)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "not a readable"),
        ("nothing", "not a readable"),
        ("[]", "not a readable"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1}', "damaged"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(LatencyError, match=words):
        measurement.LatencyTable.load(path)
    data = json.loads(table().save(path).read_text())
    data["parts"][0] = [1.0]
    path.write_text(json.dumps(data))
    with pytest.raises(LatencyError, match="four parts"):
        measurement.LatencyTable.load(path)


@pytest.mark.parametrize("name", ["batch", "threads", "networks", "rounds"])
def test_settings_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(LatencyError, match=f"{name} must be a whole number"):
        measurement.measure(resnet(), **{name: 0})


def test_an_absent_device_is_refused() -> None:
    with pytest.raises(LatencyError, match="'nonsense' cannot be used here"):
        measurement.measure(resnet(), device="nonsense")


def chosen(found: measurement.LatencyTable, limit: float | str, bend: float):
    """Masks at the limit by a fixed order, settled against networks that `bend`."""
    graph, asked = resnet(), []

    def choose(times):
        space = Space(graph, ew.Budget(latency=limit), times=times)
        asked.append(space.shrink(sorted(space.free, key=lambda u: u not in graph.group_of)))
        return asked[-1], asked[-1]

    mask, clocked = measurement.settle(found, graph, limit, choose, meter=formula(graph, bend=bend))
    return mask, clocked, asked


def test_a_table_that_is_right_is_believed_at_once() -> None:
    mask, clocked, asked = chosen(table(), 0.7, bend=1.0)
    assert asked == [mask]
    assert clocked.tries == 1
    assert clocked.met
    assert not clocked.off
    assert clocked.limit == pytest.approx(0.7 * table().unpruned)
    assert clocked.seconds == pytest.approx(seconds_of(resnet(), mask), rel=1e-6)


@pytest.mark.parametrize("bend", [0.6, 1.6])
def test_a_table_that_errs_is_corrected_by_what_was_chosen(bend: float) -> None:
    mask, clocked, asked = chosen(table(), 0.7, bend)
    assert len(asked) > 1
    assert clocked.tries == len(asked)
    assert mask == asked[-1]
    assert 0.95 * clocked.limit <= clocked.seconds <= 1.05 * clocked.limit
    first = seconds_of(resnet(), asked[0])
    assert (seconds_of(resnet(), mask) < first) == (bend < 1)


def test_no_mask_is_measured_twice() -> None:
    graph, asked, meter = resnet(), [], formula(resnet(), bend=1.6)
    only = graph.mask([unit for group in graph.nested for unit in group[:2]])
    share = table().times(graph).seconds(liveness(graph, only)) / table().unpruned

    def choose(times):
        asked.append(times)
        return only, only

    _, clocked = measurement.settle(table(), graph, share, choose, meter=meter)
    assert clocked.off
    assert len(asked) == 2
    assert meter.calls == 1


def test_a_limit_that_cannot_be_met_names_the_least() -> None:
    with pytest.raises(BudgetError, match=r"leaves latency [\d.]+ us \([\d.]+%\)"):
        chosen(table(), "1us", bend=1.0)


def test_a_limit_that_only_the_table_meets_is_said_to_be_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, clocked, asked = chosen(table(), 0.35, bend=0.1)
    assert not clocked.met
    assert "MISSED" in str(clocked)
    assert clocked.seconds == min(
        table().unpruned * (seconds_of(resnet(), m) / seconds_of(resnet(), resnet().empty)) ** 0.1
        for m in asked
    )
    assert "is missed: the fastest of" in caplog.text


def test_where_none_keeps_the_limit_the_fastest_is_taken() -> None:
    graph = resnet()
    masks = [graph.mask([u for g in graph.nested for u in g[:count]]) for count in (1, 2, 0)]
    left = iter(masks)

    def choose(times):
        mask = next(left, None)
        if mask is None:
            raise BudgetError("no more")
        return mask, mask

    mask, clocked = measurement.settle(table(), graph, 0.3, choose, meter=formula(graph))
    assert mask == masks[1]
    assert clocked.bits == str(mask)
    assert not clocked.met


def test_more_rounds_where_the_ratio_is_uncertain() -> None:
    graph = resnet()

    class Noisy(Formula):
        def networks(self, models):
            self.seen.append(len(models))
            noise = np.random.default_rng(len(self.seen)).uniform(0.5, 1.5, (7, 2))
            return noise * 0.01

    noisy, steady = Noisy(graph.program.args), formula(graph)
    target = table().target
    assert measurement.compare(graph, graph.empty, target, meter=noisy).rounds == 28
    assert measurement.compare(graph, graph.empty, target, meter=steady).rounds == 3


def test_a_real_measurement_has_all_parts() -> None:
    model, args = build("residual")
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    found = measurement.measure(graph, batch=3, threads=1, networks=2, rounds=2)
    assert found.target.batch == 3
    assert found.unpruned > 0
    assert len(found.parts) == len(graph.vertices)
    assert (np.array(found.parts) >= 0).all()
    assert np.array(found.parts).sum() > 0
    assert found.networks
    for ratio in found.networks:
        assert ratio.rounds == 2
        assert 0 < ratio.interval[0] <= ratio.median <= ratio.interval[1]
    assert found.check(graph, batch=3, threads=1) is found


def test_examples_are_repeated_to_the_batch() -> None:
    model, args = build("attention")
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    for batch in (1, 5):
        target = measurement.target_of(graph, batch, 1)
        found = measurement.stopwatch(graph, target, 1).args
        assert [x.shape[0] for x in found] == [batch] * len(found)
        assert torch.equal(found[0][0], args[0][0])


def test_threads_are_put_back() -> None:
    model, args = build("residual")
    graph, before = ew.trace(model, args, granularity=("edge", "layer")), torch.get_num_threads()
    watch = measurement.stopwatch(graph, measurement.target_of(graph, 1, before + 1), 1)
    seen = []
    watch.clock = lambda: seen.append(torch.get_num_threads()) or float(len(seen))
    assert watch.networks([graph.program.module]).tolist() == [[1.0]]
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("no_clock")
def test_a_study_keeps_a_latency_budget(tmp_path: Path) -> None:
    graph, objective = jobs.make(recovery="none")
    found = measurement.measure(graph, threads=1)
    study = ew.Study(graph, objective, latency=found)
    budget = ew.Budget(macs=0.9, latency=0.7)
    study.run(20, budget)
    plan = study.plan(finalists=4)
    assert plan.latency is not None
    assert plan.latency.met
    assert plan.latency.bits == plan.bits
    assert plan.latency.seconds <= 1.05 * 0.7 * found.unpruned
    assert plan.after.seconds == plan.latency.seconds
    assert plan.before.seconds == plan.latency.unpruned == found.unpruned
    assert plan.after.macs <= 0.9 * plan.before.macs
    assert plan.budget == {"macs": 0.9, "latency": 0.7}
    again = ew.Plan.load(plan.save(tmp_path / "plan.json"))
    assert again.latency == plan.latency
    assert ew.prune(graph, again)
    settings = study.storage.runs()[-1].settings
    assert settings["latency"] == found.digest
    free = study.plan(ew.Budget(macs=0.9), finalists=2)
    assert free.latency is None
    absolute = study.plan(ew.Budget(latency=f"{0.6e6 * found.unpruned}us"), finalists=2)
    assert absolute.latency is not None
    assert absolute.latency.seconds < plan.latency.seconds


def test_a_latency_budget_without_a_table_says_how_to_get_one() -> None:
    study = ew.Study(*jobs.make())
    with pytest.raises(BudgetError, match=r"ew\.latency\.measure\(graph\)"):
        study.run(10, ew.Budget(latency=0.8))


def test_a_study_refuses_a_table_of_another_graph() -> None:
    with pytest.raises(LatencyError, match="another model"):
        ew.Study(*jobs.make(), latency=table())


def test_one_thread_has_a_clock_of_its_own() -> None:
    assert clock_of("cpu", 1) is time.thread_time
    assert clock_of("cpu", 2) is time.perf_counter
