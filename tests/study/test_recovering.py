"""A plan that was chosen without recovery, recovered once."""

import pytest
import torch

import edgewise as ew
from edgewise.errors import ObjectiveError
from edgewise.study.recovering import recovered_once
from jobs import make


def test_a_recovered_plan_is_what_is_measured_and_pruned() -> None:
    graph, objective = make(recovery="none")
    study = ew.Study(graph, objective)
    study.run(6, ew.Budget(macs=0.7))
    plan = study.plan(finalists=1)
    calibration = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    again = recovered_once(plan, graph, objective, ew.Recovery("linear", [calibration]))
    assert (again.bits, again.recovery) == (plan.bits, "linear")
    before, after = plan.measured["report"], again.measured["report"]
    assert after.unpruned_loss == before.unpruned_loss
    assert abs(after.loss - after.unpruned_loss) < abs(before.loss - before.unpruned_loss)
    assert list(again.measured) == ["report"]
    small = ew.prune(graph, again)
    assert objective.score(small, "report").loss == pytest.approx(after.loss, rel=1e-4)
    wrong = ew.Recovery("linear", [calibration.repeat(1, 2, 1, 1)])
    with pytest.raises(ObjectiveError, match="cannot be recovered"):
        recovered_once(plan, graph, objective, wrong)
