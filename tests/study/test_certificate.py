"""What is promised of a plan: true statements, and no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import edgewise as ew
import jobs
from edgewise.errors import BudgetError, EdgewiseError, PlanError
from edgewise.evaluation.records import Evaluation, Progress
from edgewise.pruning.certificate import Certificate, Proof, Rivals
from edgewise.search import Space, draw_at_budget
from edgewise.study.certify import compared, prove
from exact_cases import cases, nested_masks

COUNT = 12


@pytest.fixture(scope="module")
def study() -> ew.Study:
    study = ew.Study(*jobs.make())
    study.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3)
    return study


@pytest.fixture(scope="module")
def plan(study: ew.Study) -> ew.Plan:
    return study.plan(finalists=5, certify=COUNT)


@pytest.mark.parametrize("masks", [1, 59, 300])
def test_none_better_is_the_textbook_bound(masks: int) -> None:
    assert Rivals("verify", masks, 0).share == pytest.approx(1 - 0.05 ** (1 / masks))


@given(st.integers(1, 200), st.data())
def test_the_bound_is_exact(masks: int, data: st.DataObject) -> None:
    """With a larger share, so few better ones would turn up in less than 5 % of the cases."""
    better = data.draw(st.integers(0, masks))
    share = Rivals("verify", masks, better).share
    if better == masks:
        assert share == 1.0
    else:
        assert binom.cdf(better, masks, share) == pytest.approx(0.05, abs=1e-6)


def test_rivals_are_counted_on_the_verify_split(study: ew.Study, plan: ew.Plan) -> None:
    drawn = [e for e in study.evaluations if e.origin == "certificate"]
    assert drawn
    assert {e.split for e in drawn} == {"verify"}
    known = {e.mask: e.loss for e in study.evaluations if e.split == "verify"}
    space = Space(study.graph, jobs.BUDGET, [study.graph.unit_index[n] for n in plan.protected])
    masks = draw_at_budget(space, COUNT, np.random.default_rng([3, 0x5EED]))
    better = sum(known[str(m)] < known[plan.bits] for m in masks)
    assert plan.certificate is not None
    assert plan.certificate.rivals == Rivals("verify", COUNT, better)


def test_rivals_change_nothing_that_is_chosen(study: ew.Study, plan: ew.Plan) -> None:
    assert replace(study.plan(finalists=5), certificate=plan.certificate) == plan
    before = len(study.evaluations)
    assert study.plan(finalists=5, certify=COUNT) == plan
    assert len(study.evaluations) == before
    more = study.plan(finalists=5, certify=COUNT + 3)
    assert more.certificate is not None
    assert more.certificate.rivals is not None
    assert more.certificate.rivals.masks == COUNT + 3


def test_an_interrupted_certificate_is_finished(tmp_path: Path, plan: ew.Plan) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = ew.Study(*jobs.make(), url)
    first.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3)
    certifying = 0

    def stop(progress: Progress) -> None:
        nonlocal certifying
        certifying += progress.phase == "certifying"
        if certifying == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.plan(finalists=5, certify=COUNT, progress=stop)
    again = ew.Study(*jobs.make(), url).plan(finalists=5, certify=COUNT)
    assert again.certificate == plan.certificate
    assert again.bits == plan.bits


def test_what_failed_may_have_been_better() -> None:
    def one(loss: float | None, status: str = "ok") -> Evaluation:
        return Evaluation("01", "verify", loss, status=status)  # type: ignore[arg-type]

    drawn = [one(0.4), one(0.5), one(0.6), one(None, "nan"), one(None, "failed")]
    assert compared(drawn, one(0.5)) == Rivals("verify", 5, 2, failed=2)
    with pytest.raises(PlanError, match="not measured on the verify split"):
        compared(drawn, one(None, "failed"))


def test_every_mask_at_the_budget_is_drawn_and_no_other(branches: ew.Graph) -> None:
    space = Space(branches, ew.Budget(macs=0.7))
    rng = np.random.default_rng(0)
    drawn = draw_at_budget(space, 400, rng)
    assert len(drawn) == 400  # with repetition: there are few
    tight = {
        mask for mask in nested_masks(branches)
        if space.allows(mask)
        and not any(space.allows(mask.with_kept(u)) for u in mask.removed if space.saving(u) > 0)
    }  # fmt: skip
    assert set(drawn) <= tight
    assert len(set(drawn)) > 1
    again = draw_at_budget(space, 10, np.random.default_rng(0))
    assert again == drawn[:10]
    with pytest.raises(BudgetError, match="cannot be drawn"):
        draw_at_budget(Space(branches, ew.Budget(macs=0.01)), 2, rng)


@pytest.mark.xdist_group("cases")  # as in test_solver.py
def test_proofs_hold_for_every_mask_within_the_budget() -> None:
    proven = 0
    for case in cases(24):
        allowed = [m for m in case.masks if case.space.allows(m)]
        if not allowed:
            continue
        proof = prove(case.space, "a name", case.model, allowed[0])
        if not isinstance(case.model, ew.surrogates.Linear | ew.surrogates.Degree2):
            assert proof is None
            continue
        assert proof is not None
        losses = case.model.predict(case.space.graph.matrix(allowed))
        assert proof.least <= min(losses) * (1 + 1e-6)
        assert proof.predicted == pytest.approx(losses[0])
        assert proof.gap == pytest.approx(losses[0] - proof.least)
        proven += 1
    assert proven > 5


def test_what_is_said_is_what_is_known(plan: ew.Plan) -> None:
    said = " ".join(plan.promises)
    assert len(plan.promises) == 2
    assert f"of {COUNT} fresh random masks" in said
    assert "examples that had no part in the choice" in said
    assert "minimise" not in said
    assert f"cannot minimise the interactions of {plan.surrogate}" in plan.certificate.unproven
    assert "conformal" not in said.lower()
    bare = replace(plan, measured={"search": plan.measured["search"]}, certificate=None)
    assert bare.promises == ()
    proof = Certificate(Proof("Linear", 0.5, 0.4))
    assert "gap 0.1" in replace(plan, certificate=proof).promises[0]


def test_a_linear_surrogate_is_proven(study: ew.Study) -> None:
    other = ew.Study(*jobs.make())
    other.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3, surrogate="Linear")
    certificate = other.plan(finalists=3).certificate
    assert certificate is not None
    assert certificate.unproven is None
    assert certificate.proof is not None
    assert certificate.proof.least <= certificate.proof.predicted


def test_certificates_are_kept(plan: ew.Plan, tmp_path: Path) -> None:
    path = plan.save(tmp_path / "plan.json")
    assert ew.Plan.load(path).certificate == plan.certificate
    data = json.loads(path.read_text())
    for damaged in ({}, data["certificate"] | {"rivals": {"split": "verify"}}, "yes"):
        path.write_text(json.dumps(data | {"certificate": damaged}))
        with pytest.raises(PlanError, match="is damaged"):
            ew.Plan.load(path)


@pytest.mark.parametrize("count", [-1, 1.5, True, "3"])
def test_a_number_of_masks_that_is_none_is_refused(study: ew.Study, count: object) -> None:
    with pytest.raises(EdgewiseError, match="certify must be a whole number of at least 0"):
        study.plan(certify=count)  # type: ignore[arg-type]


def test_without_a_verify_split_there_are_no_rivals() -> None:
    study = ew.Study(*jobs.make(verify=None, report=None))
    study.run(12, jobs.BUDGET)
    with pytest.raises(PlanError, match="needs a verify split"):
        study.plan(certify=3)
    assert study.plan(finalists=2).certificate.rivals is None
