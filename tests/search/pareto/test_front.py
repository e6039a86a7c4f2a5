"""Fronts of budgets against brute force."""

import sys

import numpy as np
import pytest

import edgewise as ew
from edgewise.errors import BudgetError
from edgewise.search import Space, front, levels
from exact_cases import nested_masks


def fitted(graph: ew.Graph) -> ew.surrogates.Linear:
    rng = np.random.default_rng(0)
    X = (rng.random((60, len(graph.units))) < 0.3).astype(float)
    return ew.surrogates.Linear().fit(X, np.exp(X @ rng.random(X.shape[1])))


def test_a_front_is_that_of_brute_force(branches: ew.Graph) -> None:
    model, masks = fitted(branches), nested_masks(branches)
    space = Space(branches, ew.Budget(macs=0.9))
    valid = [(m, cost) for m in masks if (cost := space.cost(m)) is not None]
    predicted = model.predict(branches.matrix([m for m, _ in valid]))
    budgets = [ew.Budget(macs=share) for share in np.linspace(0.3, 1.0, 12).tolist()]
    points = front(space, model, budgets)
    assert len(points) >= 3
    for budget in budgets:
        limit = budget.absolute(space.unpruned)["macs"]
        best = [p for p, (_, cost) in zip(predicted, valid, strict=True) if cost.macs <= limit]
        ours = [p.predicted for p in points if p.cost.macs <= limit]
        assert bool(best) == bool(ours)
        assert not best or min(ours) == pytest.approx(min(best))
    for one in points:
        worse = [p for p in points if p.cost.macs >= one.cost.macs and p.predicted >= one.predicted]
        assert worse == [one]


def test_known_masks_compete(branches: ew.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver minimises the path sum in a process only; a mask that is known may be better."""
    home = sys.modules[
        "edgewise.search.pareto.front"
    ]  # the package binds the function to this name
    monkeypatch.setattr(home, "descend", lambda *_, **__: None)
    rng = np.random.default_rng(1)
    X = np.vstack([np.zeros(6), np.eye(6), rng.random((20, 6)) < 0.4]).astype(float)
    masks = [
        m for row in X if (m := branches.mask(bits=row)) and ew.liveness(branches, m).connected
    ]
    rows = branches.matrix(masks)
    model = ew.surrogates.GraphGP(branches).fit(rows, np.exp(rng.normal(size=len(rows))))
    budget = ew.Budget(macs=0.8)
    allowed = [m for m in masks if Space(branches, budget).allows(m)]
    best = model.predict(branches.matrix(allowed)).min()
    (alone,) = front(Space(branches, budget), model, [budget])
    (point,) = front(Space(branches, budget), model, [budget], known=masks)
    assert point.predicted == pytest.approx(best)
    assert point.predicted < alone.predicted


def test_levels_that_nothing_meets_are_left_out(branches: ew.Graph) -> None:
    space, model = Space(branches, ew.Budget(macs=0.9)), fitted(branches)
    points = front(space, model, [ew.Budget(macs=0.8), ew.Budget(macs=1)])
    assert [p.budget for p in points] == [ew.Budget(macs=0.8)]
    with pytest.raises(BudgetError, match="The least that is reachable"):
        front(space, model, [ew.Budget(macs=1)])
    with pytest.raises(BudgetError, match="at least one budget"):
        front(space, model, [])


def test_levels_are_shares_of_what_the_budget_limits() -> None:
    found = levels(ew.Budget(macs=0.7, units=12), 3)
    assert [b.limits for b in found] == [{"units": s, "macs": s} for s in (0.9, 0.55, 0.2)]
