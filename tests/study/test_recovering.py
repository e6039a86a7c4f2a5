"""A plan that was chosen without recovery, recovered once."""

import pytest
import torch

import edgewise as ew
from edgewise.errors import ObjectiveError, PlanError
from edgewise.study.picks import picks
from edgewise.study.progress import Teller
from edgewise.study.recovering import best_recovered, recovered_once
from jobs import make


def test_finalists_meet_recovered() -> None:
    """The mask of a score wins where recovery does more for it, though others lose less without."""
    graph, objective = make(recovery="none")
    calibration = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    recovery, budget = ew.Recovery("linear", [calibration]), ew.Budget(macs=0.7)
    study = ew.Study(graph, objective)
    study.run(20, budget)
    scored = list(picks(study.space(budget), objective))
    assert scored
    plain = study.plan()
    plan = study.plan(recovery=recovery)
    assert study.plan().bits == plain.bits  # a plan teaches the next one nothing
    first = [graph.mask(bits=plain.bits), *scored]
    assert plan.recovery == "linear"
    assert plan.measured["report"].loss != plain.measured["report"].loss

    def after(mask: ew.Mask) -> float:
        small = ew.recover(graph, mask, [calibration])
        return objective.score(small, "verify").loss

    chosen = after(graph.mask(bits=plan.bits))
    assert chosen <= min(map(after, first)) * (1 + 1e-4)
    told = Teller(None, study.space(budget), 0)
    losses = {mask: after(mask) for mask in first}
    best = best_recovered(first, graph, objective, recovery, told)
    assert losses[best] == min(losses.values())
    both = ew.Study(*make(recovery="linear"))
    both.run(3, budget)
    with pytest.raises(PlanError, match="leave out recovery="):
        both.plan(recovery=recovery)


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
