"""The solver against brute force, and its rows against exact costs."""

from __future__ import annotations

import ctypes
import os
import random
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import edgewise as ew
import ruled
from edgewise.errors import BudgetError, EdgewiseError
from edgewise.search import Space, solve
from edgewise.search.solver.costs import Priced
from edgewise.search.solver.model import Frame, _silent, minimise
from edgewise.search.solver.objective import target_of
from edgewise.search.solver.path_rows import segments
from edgewise.search.solver.rows import Circuit, Rows
from edgewise.surrogates.path_fit import PathFit
from edgewise.surrogates.reduction import reduce_graph
from edgewise.testing import laws
from edgewise.values.quantities import shown
from exact_cases import QUANTITIES, Case, cases, nested_masks, random_graph, random_times
from zoo import BRANCHES, WIDTHS, ZOO, traced

one_process = pytest.mark.xdist_group("cases")  # which counts the masks of each case once


def random_path_sum(graph: ew.Graph, seed: int) -> ew.surrogates.PathSum:
    """A path sum with weights drawn at random."""
    model = ew.surrogates.PathSum(graph)
    model.flow_ = reduce_graph(graph)
    theta = np.random.default_rng(seed).normal(size=len(model.flow_.tails))
    model.fit_ = PathFit(0.0, 1.0, 0.0, 1.0, model.flow_.softmax(theta))
    model.n_features_in_ = len(graph.units)
    return model


def random_linear(graph: ew.Graph, seed: int) -> ew.surrogates.Linear:
    """A linear surrogate with coefficients drawn at random, some of them negative."""
    rng = np.random.default_rng(seed)
    X = np.vstack([np.zeros(len(graph.units)), np.eye(len(graph.units))])
    return ew.surrogates.Linear().fit(X, np.exp(X @ rng.normal(0.5, 1.0, X.shape[1])))


def assert_agrees(case: Case, frame: Frame | None = None) -> int:
    """Compare a solution with brute force; how many rows were added for masks that fail."""
    best = case.best
    if best is None:
        with pytest.raises(BudgetError):
            solve(case.space, case.model, pairs=1000, frame=frame)
        return 0
    found = solve(case.space, case.model, pairs=1000, frame=frame)
    assert case.allows(found.mask), case.seed
    assert case.space.graph.nest(found.mask) == found.mask
    assert found.cost == ew.cost(case.space.graph, found.mask)
    assert found.value == pytest.approx(best, abs=1e-5, rel=1e-5), case.seed
    assert found.bound <= best + 1e-9
    assert found.optimal
    assert found.gap == 0
    return found.cuts


@one_process
def test_optima_are_those_of_brute_force() -> None:
    for case in cases(20):
        assert_agrees(case)


@pytest.mark.parametrize("kind", ruled.RULES)
@given(data=st.data(), seed=st.integers(0, 99), share=st.sampled_from([0.5, 0.7, 0.85]))
@settings(max_examples=4)
def test_optima_under_rules_are_those_of_brute_force(
    kind: str, data: st.DataObject, seed: int, share: float
) -> None:
    """Rules of one kind, and a share beside it; the limits are added up here one by one."""
    rules = {"at_most": {"edge": 0.75}, kind: data.draw(ruled.RULES[kind])}
    few = ruled.vit().select(lambda unit: not unit.name.startswith("hidden:blocks.1"))
    try:
        graph = ew.restrict(few, **rules)
    except EdgewiseError:
        reject()
    model = random_linear(graph, seed)
    masks = nested_masks(graph)
    space = Space(graph, ew.Budget(params=share))
    cuts = assert_agrees(Case(seed, space, model, masks, graph.matrix(masks)))
    assert cuts == 0  # limits are rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ruled.RULES)
def test_optima_of_random_networks_under_rules_are_those_of_brute_force(kind: str) -> None:
    for case in cases(30, rule=kind):
        assert_agrees(case)


@pytest.mark.slow
def test_two_hundred_optima_are_those_of_brute_force() -> None:
    for case in cases(200):
        assert_agrees(case)


@one_process
def test_a_frame_that_knows_nothing_of_costs_finds_the_same_by_cuts() -> None:
    """Neither costs nor outputs are in the rows: every mask that fails is cut off."""
    cuts = 0
    for case in cases(12):
        graph = case.space.graph
        frame = Frame(graph, tuple(case.space.limits))
        frame.rows = Rows()
        frame.keeps = [frame.rows.variable(integer=True) for _ in graph.units]
        for group in graph.nested:
            for first, second in pairwise(group):
                frame.rows.at_least({frame.keeps[second]: 1.0, frame.keeps[first]: -1.0}, 0.0)
        frame.prices = {name: Priced(0.0, {}) for name in case.space.limits}
        frame.carries, frame.conjunctions = {}, {}
        cuts += assert_agrees(case, frame)
    assert cuts > 10


def costs_at_least(frame: Frame, mask: ew.Mask) -> list[float]:
    """The least that the rows say a mask costs."""
    rows = frame.rows.copy()
    for keep, gone in zip(frame.keeps, mask.bits, strict=True):
        rows.lower[keep] = rows.upper[keep] = float(not gone)
    found = []
    for price in frame.prices.values():
        size = max([1.0, *price.terms.values()])
        solved = minimise(rows, {k: value / size for k, value in price.terms.items()})
        assert solved.feasible, f"the rows cut off {mask}"
        found.append(price.constant + size * solved.bound)
    return found


def compare_costs(graph: ew.Graph, seed: int, masks: int) -> list[bool]:
    """Check that no cost is overstated; which are met exactly."""
    frame, rng, exact = Frame(graph, QUANTITIES), random.Random(seed), []
    for _ in range(masks):
        mask = graph.nest(laws.random_mask(graph, rng))
        if not ew.liveness(graph, mask).connected:
            continue
        cost = ew.cost(graph, mask)
        for name, bound in zip(QUANTITIES, costs_at_least(frame, mask), strict=True):
            true = getattr(cost, name)
            assert bound <= true * (1 + 1e-6) + 1e-3, f"{name} of {mask} is overstated"
            exact.append(bound >= true * (1 - 1e-6) - 1e-3)
    return exact


@pytest.mark.parametrize("name", sorted(ZOO.keys() - {"recommender"}))
@pytest.mark.parametrize("kinds", [BRANCHES, WIDTHS], ids=["branches", "widths"])
def test_rows_count_what_is_alive_exactly(name: str, kinds: tuple[str, ...]) -> None:
    assert all(compare_costs(traced(name, kinds), 0, 2))


def test_rows_that_are_not_exact_overstate_nothing() -> None:
    """Products of vectors that are indexed one by one: the rows say less than is there."""
    exact = compare_costs(traced("recommender", WIDTHS), 0, 4)
    assert any(exact)
    assert not all(exact)


def test_rows_never_overstate_a_cost() -> None:
    exact = []
    for seed in range(15):
        graph = random_graph(seed, units=40)
        if graph is not None:
            exact += compare_costs(graph, seed, 3)
    assert np.mean(exact) > 0.98


def test_a_branch_that_is_cut_off_is_not_paid_for(residual: ew.Graph) -> None:
    """Two removals that kill a branch together: costs do not add up, and the rows know."""
    whole = Frame(residual, ("macs",))
    branch = residual.unit_index["blocks.0.first.0..blocks.0.norm"]
    inside = residual.unit_index["bypass:blocks.0.conv"]
    both = residual.mask([branch, inside])
    saved = residual.units[branch].cost.macs + residual.units[inside].cost.macs
    assert costs_at_least(whole, both)[0] == ew.cost(residual, both).macs
    assert ew.cost(residual, both).macs > ew.cost(residual).macs - saved


@pytest.mark.parametrize("upper", [False, True])
def test_circuits_are_bounded_from_the_side_asked_for(upper: bool) -> None:
    rows = Rows()
    a, b, c = (rows.variable(integer=True) for _ in range(3))
    circuit = Circuit(rows, upper=upper)
    one, two, three = (frozenset((v,)) for v in (a, b, c))
    literal = circuit.all(circuit.any([one, two]), three)
    assert literal is not None
    top = circuit.variable(literal)
    for bits in np.ndindex(2, 2, 2):
        fixed = rows.copy()
        for variable, bit in zip((a, b, c), bits, strict=True):
            fixed.lower[variable] = fixed.upper[variable] = float(bit)
        sign = -1.0 if upper else 1.0
        assert sign * minimise(fixed, {top: sign}).bound == ((bits[0] or bits[1]) and bits[2])
    assert circuit.any([one, circuit.all(one, two)]) == one
    assert circuit.all(circuit.any([one, two]), one) == one
    assert circuit.all(one, None) is None


def test_protected_units_stay(residual: ew.Graph) -> None:
    model = random_path_sum(residual, 0)
    free = solve(Space(residual, ew.Budget(macs=0.6)), model)
    kept = Space(residual, ew.Budget(macs=0.6), free.mask.removed[:1])
    found = solve(kept, model)
    assert not found.mask.bits[free.mask.removed[0]]
    assert found.value >= free.value


@one_process
def test_an_impossible_budget_names_the_least_cost_that_is_reachable() -> None:
    told = 0
    for case in cases(12):
        for name in case.space.limits:
            least = case.least(name)
            if least > 1:
                space = Space(case.space.graph, ew.Budget(**{name: least - 1}))
                with pytest.raises(BudgetError, match=re.escape(f"{name} {least:,} (")):
                    solve(space, case.model)
                told += 1
    assert told > 8


class Either(torch.nn.Module):
    """Two branches, of few parameters and of few MACs; one of them must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Conv2d(4, 4, 1)
        self.deep = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wide(x) + self.deep(x.mean((2, 3)))[:, :, None, None]


def test_an_impossible_budget_names_the_rules_that_forbid_it() -> None:
    tight = ew.restrict(ruled.vit(), at_most={"edge": 0.25, "heads": 0.8})
    told = r"edge': 0.25}: without it there are masks\.$"
    with pytest.raises(BudgetError, match=told):
        solve(Space(tight, ew.Budget(params=0.56)), random_linear(tight, 0))
    both = ew.restrict(ruled.vit(), at_most={"edge": 0}, keep=["blocks.0.mlp", "blocks.1.mlp"])
    with pytest.raises(BudgetError, match=r"Forbidden by keep='blocks.0.mlp', .* together: "):
        solve(Space(both, ew.Budget(params=0.5)), random_linear(both, 0))


def test_limits_that_exclude_each_other_are_named_together() -> None:
    graph = ew.trace(Either(), (torch.randn(2, 4, 8, 8),), granularity="edge")
    model = random_path_sum(graph, 0)
    for limits in ({"params": 100}, {"macs": 800}):
        assert solve(Space(graph, ew.Budget(**limits)), model).optimal
    told = r"params 580 \(.*%\) within the other limits; macs 1,024 \(.*%\) within the other limits"
    with pytest.raises(BudgetError, match=told):
        solve(Space(graph, ew.Budget(params=100, macs=800)), model)


def chain(blocks: int) -> ew.Graph:
    class Block(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inner, self.outer = torch.nn.Linear(8, width), torch.nn.Linear(width, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.outer(self.inner(x).relu())

    model = torch.nn.Sequential(*(Block(4 + i % 5) for i in range(blocks)), torch.nn.Linear(8, 2))
    return ew.trace(model, (torch.randn(2, 8),), granularity="edge")


def test_four_hundred_units_are_solved_to_the_optimum() -> None:
    graph = chain(200)
    assert len(graph.units) == 400
    model = random_path_sum(graph, 0)
    assert len(segments(model.flow_, model.fit_.weights)) == 200
    found = solve(Space(graph, ew.Budget(macs=0.6)), model, time_limit=60)
    assert found.optimal
    assert found.rounds == 1


class Crossing(torch.nn.Module):
    """Every value is the sum of layers of three values before it."""

    def __init__(self, values: int) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.reads = [rng.integers(max(0, i - 6), i + 1, 3).tolist() for i in range(values)]
        widths = rng.integers(4, 64, 3 * values).tolist()
        layers = (torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 4)) for w in widths)
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, layers = [x], iter(self.layers)
        for reads in self.reads:
            values.append(sum(next(layers)(values[i]) for i in reads))
        return values[-1]


def test_a_time_limit_gives_the_best_mask_so_far_and_an_honest_gap() -> None:
    graph = ew.trace(Crossing(12), (torch.randn(2, 4),), granularity="edge")
    space, model = Space(graph, ew.Budget(macs=0.6)), random_path_sum(graph, 1)
    whole = solve(space, model)
    assert whole.optimal
    found = solve(space, model, time_limit=0.0)
    assert not found.optimal
    assert space.allows(found.mask)
    assert found.value == pytest.approx(model.predict_link(graph.matrix([found.mask]))[0])
    assert found.bound <= whole.value <= found.value
    assert found.gap == pytest.approx(found.value - found.bound)
    assert found.gap > 0


def test_all_interactions_of_a_degree2_are_its_predictions(residual: ew.Graph) -> None:
    rng = np.random.default_rng(0)
    X = (rng.random((40, 12)) < 0.3).astype(float)
    model = ew.surrogates.Degree2().fit(X, np.exp(X @ rng.random(12) + X[:, 0] * X[:, 1]))
    whole, few = target_of(model, 12, 66), target_of(model, 12, 5)
    np.testing.assert_allclose(whole.predict(X), model.predict_link(X), atol=1e-9)
    off = np.abs(few.predict(X) - model.predict_link(X)).max()
    found = solve(Space(residual, ew.Budget(macs=0.6)), model, pairs=5)
    assert 0 < off <= found.left_out + 1e-9


def test_the_path_sum_inside_a_gaussian_process_is_minimised(residual: ew.Graph) -> None:
    rng = np.random.default_rng(0)
    X = np.vstack([np.zeros(12), np.eye(12), rng.random((30, 12)) < 0.3]).astype(float)
    losses = np.exp(X @ rng.random(12))
    space = Space(residual, ew.Budget(macs=0.6))
    model = ew.surrogates.GraphGP(residual).fit(X, losses)
    found = solve(space, model)
    inside = target_of(model, 12).predict(residual.matrix([found.mask]))[0]
    assert found.value == pytest.approx(inside)
    constant = ew.surrogates.GraphGP(residual).fit(X, np.ones(len(X)))
    assert solve(space, constant).optimal


def test_other_surrogates_are_refused(residual: ew.Graph) -> None:
    with pytest.raises(EdgewiseError, match="cannot minimise a FCN"):
        solve(Space(residual, ew.Budget(macs=0.6)), ew.surrogates.FCN())


def test_latency_needs_times(residual: ew.Graph) -> None:
    with pytest.raises(BudgetError, match="need the times of the operators"):
        Frame(residual, ("macs", "latency"))


@one_process
def test_optima_within_a_latency_are_those_of_brute_force() -> None:
    for case in cases(12, timed=True):
        best = case.best
        if best is None:
            with pytest.raises(BudgetError, match="The least that is reachable: "):
                solve(case.space, case.model, pairs=1000)
            continue
        found = solve(case.space, case.model, pairs=1000)
        assert case.space.allows(found.mask)
        assert found.value == pytest.approx(best, abs=1e-5, rel=1e-5), case.seed
        assert found.optimal


def seconds_at_least(frame: Frame, mask: ew.Mask) -> float:
    price = frame.prices["latency"]
    rows = frame.rows.copy()
    for keep, gone in zip(frame.keeps, mask.bits, strict=True):
        rows.lower[keep] = rows.upper[keep] = float(not gone)
    size = max([1e-12, *price.terms.values()])
    solved = minimise(rows, {k: value / size for k, value in price.terms.items()})
    assert solved.feasible
    return price.constant + size * solved.bound


def test_rows_never_overstate_a_latency() -> None:
    exact = []
    for seed in range(15):
        graph = random_graph(seed, units=40)
        if graph is None:
            continue
        times, rng = random_times(graph, seed), random.Random(seed)
        frame = Frame(graph, ("latency",), times)
        for _ in range(3):
            mask = graph.nest(laws.random_mask(graph, rng))
            alive = ew.liveness(graph, mask)
            if alive.connected:
                bound, true = seconds_at_least(frame, mask), times.seconds(alive)
                assert bound <= true * (1 + 1e-6) + 1e-9, f"latency of {mask} is overstated"
                exact.append(bound >= true * (1 - 1e-6) - 1e-9)
    assert np.mean(exact) > 0.97


@one_process
def test_an_impossible_latency_names_the_least_that_is_reachable() -> None:
    told = 0
    for case in cases(12, timed=True):
        space, least = case.space, case.least("latency")
        if least > 0.02 * space.unpruned.latency:
            budget = ew.Budget(latency=f"{0.98 * least:.9g}s")
            narrow = Space(space.graph, budget, times=space.times)
            with pytest.raises(BudgetError, match=re.escape(f"latency {shown('latency', least)}")):
                solve(narrow, case.model)
            told += 1
    assert told > 6


@pytest.mark.skipif(os.name != "posix", reason="only there the solver's own lines are held back")
def test_what_the_solver_prints_is_not_mixed_into_results(capfd: pytest.CaptureFixture) -> None:
    library = ctypes.CDLL(None)
    library.puts(b"before")
    with _silent():
        library.puts(b"HighsMipSolverData")
    library.puts(b"after")
    library.fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"
