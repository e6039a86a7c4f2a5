"""What need not have gone comes back at the end of a plan."""

from __future__ import annotations

from itertools import combinations

import pytest

import edgewise as ew
import jobs
from edgewise.study.progress import Teller
from edgewise.study.put_backs import with_put_backs


@pytest.fixture(scope="module")
def study() -> ew.Study:
    study = ew.Study(*jobs.make())
    study.run(12, ew.Budget(macs=0.9))
    return study


def better(study: ew.Study, mask: ew.Mask, budget: ew.Budget) -> list[ew.Mask]:
    """The masks with a unit put back that fit, and lose less on the verify split."""
    space = study.space(budget)
    fits = [less for u in space.gone(mask) if space.allows(less := mask.with_kept(u))]
    own, *others = study.evaluate([mask, *fits], "verify")
    pairs = zip(fits, others, strict=True)
    return [less for less, e in pairs if e.loss is not None and e.loss < (own.loss or 0.0)]


def test_a_plan_can_take_no_unit_back(study: ew.Study) -> None:
    for macs in (0.9, 0.7):
        plan = study.plan(ew.Budget(macs=macs), finalists=2)
        mask = study.graph.mask(bits=plan.bits)
        assert not better(study, mask, ew.Budget(macs=macs))
        assert plan.removed == tuple(study.graph.units[u].name for u in mask.removed)
        assert plan.predicted["loss"] is not None


def test_units_that_went_for_nothing_come_back(study: ew.Study) -> None:
    """Three went where one would have done, the two others at a loss."""
    budget = ew.Budget(macs=0.95)
    space = study.space(budget)
    triples = map(study.graph.mask, combinations(range(len(study.graph.units)), 3))
    mask = next(m for m in triples if space.allows(m) and better(study, m, budget))
    told = Teller(None, space, 0)
    found = with_put_backs(space, study._measuring, mask, told)
    assert set(found.removed) < set(mask.removed)
    assert space.allows(found)
    assert not better(study, found, budget)
    assert told.phase == "putting back"
    assert told.total >= told.done
