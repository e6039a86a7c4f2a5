"""Fronts of three objectives against brute force."""

import builtins
from collections.abc import Sequence

import numpy as np
import pytest

import edgewise as ew
import jobs
from edgewise.errors import BudgetError, EdgewiseError
from edgewise.search import Point, Space, trade_offs
from exact_cases import nested_masks, random_times
from search.pareto.test_front import fitted

pytest.importorskip("pymoo")
COSTS = ("macs", "params", "latency")


def volume(values: np.ndarray, far: np.ndarray) -> float:
    """The share of a box that values dominate, by the same random points each time."""
    points = np.random.default_rng(0).random((20_000, len(far))) * far
    return float((points[:, None] >= values[None]).all(-1).any(1).mean())


def rows(points: Sequence[Point]) -> np.ndarray:
    return np.array([[p.predicted, *(getattr(p.cost, name) for name in COSTS)] for p in points])


def test_a_front_is_that_of_brute_force(residual: ew.Graph) -> None:
    graph = residual
    model, masks = fitted(graph), nested_masks(graph)
    times = random_times(graph, 1)
    space = Space(graph, ew.Budget(macs=0.9), [0], times=times)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = trade_offs(space, model, COSTS, seed=1, population=60, generations=30)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    ours = rows(found)
    valid = [m for m in masks if space.connected(m) and not m.bits[0]]
    costs = [space.cost(m) for m in valid]
    losses = model.predict(graph.matrix(valid))
    every = np.array(
        [[v, *(getattr(c, n) for n in COSTS)] for v, c in zip(losses, costs, strict=True)]
    )
    far = every.max(0) * 1.01
    assert volume(ours, far) >= 0.99 * volume(every, far)
    better = (ours[None] <= ours[:, None]).all(-1) & (ours[None] < ours[:, None]).any(-1)
    assert not better.any()
    for point in found:
        assert point.mask in valid
    again = trade_offs(space, model, COSTS, seed=1, population=60, generations=30)
    assert again == found


def test_widths_go_in_their_order() -> None:
    graph = jobs.make(kinds=("edge", "hidden"))[0]
    space = Space(graph, ew.Budget(macs=0.9), [graph.nested[0][1]])
    for point in trade_offs(space, fitted(graph), COSTS[:2], population=20, generations=5):
        assert graph.nest(point.mask) == point.mask
        assert space.connected(point.mask)
        assert not point.mask.bits[graph.nested[0][1]]


def test_a_study_gives_what_was_measured_of_its_points() -> None:
    study = ew.Study(*jobs.make())
    study.run(30, jobs.BUDGET)
    points = study.pareto(objectives=("macs", "params"), seed=2, surrogate="GraphGP")
    losses = {e.mask: e.loss for e in study.evaluations if e.split == "search"}
    assert any(p.measured is not None for p in points)
    assert all(p.measured == losses.get(str(p.mask)) for p in points)
    with pytest.raises(BudgetError, match="needs a study with a latency table"):
        study.pareto(objectives=COSTS)
    with pytest.raises(BudgetError, match="either budgets= or objectives="):
        study.pareto([jobs.BUDGET], objectives=("macs", "params"))


@pytest.mark.parametrize("wrong", [(), ("macs",), ("macs", "macs")])
def test_fewer_than_two_costs_are_refused(branches: ew.Graph, wrong: tuple[str, ...]) -> None:
    space = Space(branches, ew.Budget(macs=0.9))
    with pytest.raises(BudgetError, match="at least two different costs"):
        trade_offs(space, fitted(branches), wrong)
    with pytest.raises(BudgetError, match="No cost is called 'flops'"):
        trade_offs(space, fitted(branches), ("macs", "flops"))


def test_without_pymoo_it_says_what_to_install(
    branches: ew.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name.startswith("pymoo"):
            raise ImportError(name)
        return original(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(EdgewiseError, match=r"edgewise\[pareto\]"):
        trade_offs(Space(branches, ew.Budget(macs=0.9)), fitted(branches), ("macs", "params"))
