"""Which evaluations a surrogate is fitted to, and what a search's own work costs."""

from __future__ import annotations

import numpy as np
import pytest

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Space
from edgewise.study import fitting
from edgewise.study.fitting import Observations, predicted, searching
from edgewise.surrogates.searcher import searcher


def records(graph: ew.Graph, removed: list[int], seed: int = 0) -> list[Evaluation]:
    """The empty mask, single removals, and masks of so many removals."""
    rng = np.random.default_rng(seed)
    units = len(graph.units)
    drawn = [rng.choice(units, count, replace=False).tolist() for count in removed]
    masks = [graph.empty, *(graph.mask([u]) for u in range(units)), *map(graph.mask, drawn)]
    return [Evaluation(str(m), "search", 1.0 + 0.1 * sum(m.removed)) for m in masks]


def test_few_evaluations_all_count(residual: ew.Graph) -> None:
    known = records(residual, [3] * 20)
    space = Space(residual, ew.Budget(units=9))
    data = Observations.of([*known, Evaluation("1" * 12, "verify", 9.0)], space)
    assert data.X.shape == (33, 12)
    assert data.link == "log"
    assert data.y.tolist() == [e.loss for e in known]


def test_of_many_those_count_that_are_near_the_budget_and_good(
    branches: ew.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "MOST", 10)
    alike = branches.select(lambda unit: "first" in unit.name or "->" not in unit.name)
    known = records(alike, [1] * 30 + [2] * 30)
    space = Space(alike, ew.Budget(units=len(alike.units) - 2))
    data = Observations.of(known, space)
    alone = 1 + len(alike.units) + 30
    assert len(data.y) == alone + 10
    assert (data.X[:alone].sum(axis=1) <= 1).all(), "single removals stay"
    at_budget = sorted(e.loss or 0.0 for e in known if e.mask.count("1") == 2)
    assert sorted(data.y[alone:]) == at_budget[:10]


def test_predictions_in_blocks_are_those_at_once(
    residual: ew.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = records(residual, [3] * 20)
    space = Space(residual, ew.Budget(units=9))
    model = searching(searcher("auto"))(known, space)
    masks = [residual.mask(bits=e.mask) for e in known]
    whole = predicted(model, residual, masks)
    monkeypatch.setattr(fitting, "ROWS", 7)
    np.testing.assert_allclose(predicted(model, residual, masks), whole)
