"""Recovery of one mask at the end, and what it is said to cost."""

import numpy as np
import pytest
import torch

import edgewise as ew
import jobs
from edgewise.errors import ObjectiveError
from edgewise.evaluation import evaluator, recover
from edgewise.evaluation.engine import least_squares
from edgewise.evaluation.evaluator import Engine
from edgewise.evaluation.recover import estimate


@pytest.fixture(scope="module")
def job():
    """A graph, its calibration data, and a mask of some of its units."""
    graph, objective = jobs.make(recovery="linear")
    (mask,) = ew.sample_masks(graph, 1, removed=3, rng=np.random.default_rng(0))
    return graph, objective.recovery.batches, objective, mask


@pytest.mark.parametrize("kind", ["linear", "batchnorm"])
def test_a_recovered_model_has_the_tensors_of_an_evaluation(job, kind) -> None:
    graph, calibration, objective, mask = job
    own = ew.Objective(
        objective.splits["search"], objective.loss, recovery=ew.Recovery(kind, calibration)
    )
    (outcome,) = Engine(graph, own).evaluate([mask], tensors=True)
    small = ew.recover(graph, mask, calibration, kind=kind)
    state = small.state_dict()
    assert outcome.tensors
    for name, value in outcome.tensors.items():
        assert torch.equal(state[name], value)


def test_a_plan_gets_what_its_mask_gets_and_loses_what_it_had(job) -> None:
    graph, calibration, _, mask = job
    own = ew.recover(graph, mask, calibration)
    name = next(name for name in own.state_dict() if name.endswith("running_mean"))
    names = tuple(graph.units[unit].name for unit in mask.removed)
    cost = ew.cost(graph, mask)
    plan = ew.Plan(
        str(mask), graph.fingerprint, names, (), {}, cost, cost, {}, {}, "", "batchnorm", {}, {},
        tensors={name: torch.ones_like(own.state_dict()[name])},
    )  # fmt: skip
    other = ew.recover(graph, plan, calibration)
    for name, value in own.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_none_is_no_recovery_and_few_examples_are_refused(job) -> None:
    graph, calibration, _, mask = job
    with pytest.raises(ObjectiveError, match="none"):
        ew.recover(graph, mask, calibration, kind="none")
    with pytest.raises(ObjectiveError, match="at least 32"):
        ew.recover(graph, mask, [calibration[0][0][:4]])


def test_a_finished_mask_may_take_more_rows(job, monkeypatch) -> None:
    graph, calibration, *_ = job
    mask = graph.mask([0])

    def fitted(rows: int, times: int) -> list[torch.Tensor]:
        monkeypatch.setattr(least_squares, "ROWS", rows)
        monkeypatch.setattr(evaluator, "ONCE", times)
        return list(ew.recover(graph, mask, calibration).state_dict().values())

    wanted, more, few = fitted(128, 1), fitted(32, 4), fitted(32, 1)
    assert all(map(torch.equal, wanted, more))
    assert not all(map(torch.equal, wanted, few))


def test_an_estimate_bounds_what_is_fitted_and_grows_with_the_data(job) -> None:
    graph, calibration, *_ = job
    small = estimate(graph, ew.Recovery("linear", calibration))
    large = estimate(graph, ew.Recovery("linear", calibration * 20))
    assert small.layers == large.layers > 0
    assert (small.fewer, small.bytes) < (large.layers + 1, large.bytes)
    assert 0 < small.seconds < 60
    assert f"{small.layers} layers" in str(small)


def test_where_a_mask_takes_long_something_cheaper_is_offered(job, monkeypatch) -> None:
    graph, calibration, *_ = job
    recovery = ew.Recovery("linear", calibration * 20)
    assert not estimate(graph, recovery).cheaper
    monkeypatch.setattr(recover, "SLOW", 0.0)
    found = str(estimate(graph, recovery))
    assert f"Cheaper: {recover.FEW} of the" in found
    assert 'recovery = "batchnorm"' in found
    plain = ew.trace(
        torch.nn.Sequential(*[torch.nn.Linear(4, 4)] * 2),
        torch.ones(2, 4),
        granularity=("edge", "layer"),
    )
    found = str(estimate(plain, ew.Recovery("linear", [torch.ones(40, 4)])))
    assert "ew.recover(graph, plan, inputs)" in found
    assert "batchnorm" not in found
