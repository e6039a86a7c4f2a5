"""Sampling, descent and protection on small graphs, against brute force."""

import itertools

import numpy as np
import pytest
import torch

import edgewise as ew
from edgewise.errors import BudgetError, MaskError
from edgewise.evaluation.records import Evaluation
from edgewise.search import Space, answered, descend, fatal_units, search
from edgewise.search.picks import damages, probes, ranked_pick, single_pick


def evaluations(graph: ew.Graph, loss) -> dict[ew.Mask, Evaluation]:
    masks = [graph.empty, *(graph.mask([u]) for u in range(len(graph.units)))]
    return {m: Evaluation(str(m), "search", loss(m)) for m in masks}


@pytest.mark.parametrize("removed", [0, 1, 3, 6])
def test_samples_are_valid_distinct_and_of_the_size_asked(residual: ew.Graph, removed: int) -> None:
    masks = ew.sample_masks(residual, 20, removed=removed, rng=np.random.default_rng(0))
    assert len(set(masks)) == len(masks)
    assert all(len(m.removed) == removed for m in masks)
    assert all(ew.liveness(residual, m).connected for m in masks)
    assert len(masks) == (1 if removed == 0 else 12 if removed == 1 else 20)


def test_samples_meet_the_budget_without_waste(residual: ew.Graph) -> None:
    space = Space(residual, ew.Budget(macs=0.6))
    for mask in ew.sample_masks(residual, 15, budget=space.budget, rng=np.random.default_rng(1)):
        assert space.allows(mask)
        for unit in mask.removed:
            if space.saving(unit) > 0:
                assert not space.allows(mask.with_kept(unit)), "a unit was removed for nothing"


def test_sampling_explains_what_it_needs(residual: ew.Graph) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(MaskError, match="either removed= or budget="):
        ew.sample_masks(residual, 3, rng=rng)
    with pytest.raises(MaskError, match="has 12 units"):
        ew.sample_masks(residual, 3, removed=13, rng=rng)
    with pytest.raises(MaskError, match="No valid mask that removes 12"):
        ew.sample_masks(residual, 3, removed=12, rng=rng)


def test_an_impossible_budget_names_the_smallest_cost(residual: ew.Graph) -> None:
    with pytest.raises(BudgetError, match=r"leaves params 277 \(7\.2%\)"):
        ew.sample_masks(residual, 1, budget=ew.Budget(params=0.01), rng=np.random.default_rng(0))
    with pytest.raises(BudgetError, match="at least one limit"):
        ew.Budget()
    with pytest.raises(BudgetError, match="positive"):
        ew.Budget(macs=-1)


@pytest.mark.parametrize("seed", range(5))
def test_descent_ends_in_a_feasible_local_optimum(residual: ew.Graph, seed: int) -> None:
    """No single removal, return or swap that stays within the budget is better."""
    space, rng = Space(residual, ew.Budget(macs=0.7)), np.random.default_rng(seed)
    weights = rng.normal(size=12)

    def value(mask: ew.Mask) -> float:
        return float(residual.matrix([mask])[0] @ weights)

    start = ew.sample_masks(residual, 1, budget=space.budget, rng=rng)[0]
    end = descend(space, lambda X: X @ weights, start, rng=rng)
    assert end is not None
    assert space.allows(end)
    for back, more in itertools.product([None, *end.removed], [None, *range(12)]):
        move = end if back is None else end.with_kept(back)
        move = move if more is None else move.with_removed(more)
        assert value(move) >= value(end) - 1e-9 or not space.allows(move)
    other = descend(
        space, lambda X: X @ weights, start, rng=rng, avoid=frozenset([space.network(end)])
    )
    assert other is None or space.network(other) != space.network(end)


def test_descent_is_exact_where_units_are_alike(branches: ew.Graph) -> None:
    """Branches of equal cost under an additive score: the cheapest win."""
    alike = branches.select(lambda unit: "first" in unit.name)
    space = Space(alike, ew.Budget(units=1))
    for weights in itertools.permutations([0.1, 0.2, 0.3]):
        line = np.array(weights)
        start = alike.mask([0, 1])
        end = descend(space, lambda X, w=line: X @ w, start, rng=np.random.default_rng(0))
        assert end is not None
        assert sorted(line[list(end.removed)]) == [0.1, 0.2]


class Ladder(torch.nn.Module):
    """Forty equal residual branches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(40))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def ladder() -> ew.Graph:
    graph = ew.trace(Ladder(), (torch.randn(1, 2),), granularity="edge")
    return graph.select(lambda unit: "layers" in unit.name and "->" not in unit.name)


def test_a_descent_over_many_units_takes_few_steps_and_stays_exact() -> None:
    """All pairs of units that go and come back are 300; the best ones go several at a time."""
    graph = ladder()
    space, rng = Space(graph, ew.Budget(units=25)), np.random.default_rng(0)
    weights, asked = rng.permutation(40) / 40.0, list[int]()

    def score(X: np.ndarray) -> np.ndarray:
        asked.append(len(X))
        return X @ weights

    worst = graph.mask([int(u) for u in np.argsort(-weights)[:15]])
    end = descend(space, score, worst, rng=rng)
    assert end is not None
    assert set(end.removed) == set(np.argsort(weights)[:15].tolist())
    assert len(asked) < 30, "one exchange at a time would ask for 15 * 4 blocks"
    asked.clear()
    assert descend(space, score, worst, rng=rng, steps=3) is not None
    assert len(asked) < 13


def test_units_are_removed_as_one_by_one_where_none_disconnects() -> None:
    graph = ladder()
    space = Space(graph, ew.Budget(units=31))
    order = np.random.default_rng(0).permutation(40).tolist()
    assert space.removing(graph.empty, order).removed == tuple(sorted(order[:9]))
    done = graph.mask(order[:9])
    assert space.removing(done, order) == done


def test_fatal_units_are_protected(branches: ew.Graph) -> None:
    """Skips that lose more alone than a whole mask does are kept; cheap branches are not."""

    def loss(mask: ew.Mask) -> float:
        return 0.1 + sum(3.0 if "->" in branches.units[u].name else 0.2 for u in mask.removed)

    space = Space(branches, ew.Budget(macs=0.7))
    known = evaluations(branches, loss)
    pick = single_pick(space, known)
    assert pick is not None
    assert [branches.units[u].name for u in pick.removed] == ["blocks.0.first.0..blocks.0.norm"]
    known[pick] = Evaluation(str(pick), "search", loss(pick))
    names = {branches.units[u].name for u in fatal_units(space, known)}
    assert names == {
        "stem.2->blocks.0.add",
        "blocks.0.relu->blocks.1.add",
        "blocks.1.relu->blocks.2.add",
    }


def test_a_search_measures_no_network_twice(residual: ew.Graph) -> None:
    """A branch that is gone and a bypass inside it are one network, and one evaluation."""
    space = Space(residual, ew.Budget(macs=0.6))
    branch, inside = "blocks.0.first.0..blocks.0.norm", "bypass:blocks.0.conv"
    both = residual.mask([branch, inside])
    assert space.network(both) == space.network(residual.mask([branch]))
    assert space.minimal(both) == residual.mask([branch])
    weights = np.linspace(0.1, 0.5, 12)

    def loss(mask: ew.Mask) -> float:
        return float(np.exp(residual.matrix([mask])[0] @ weights))

    def fit(evaluations, space):
        X = residual.matrix([residual.mask(bits=e.mask) for e in evaluations])
        return ew.surrogates.Linear().fit(X, [e.loss for e in evaluations])

    found = answered(
        search(space, fit, seed=0, limit=60),
        lambda ask: [Evaluation(str(m), "search", loss(m)) for m in ask.masks],
    )
    asked = [residual.mask(bits=e.mask) for e in found]
    networks = [space.network(mask) for mask in asked]
    assert len(set(networks)) == len(networks) >= 25


def test_the_damage_of_the_ranking_is_shared_out_among_widths() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    graph = ew.trace(model, (torch.randn(2, 4),), granularity="hidden", slices=5)
    space = Space(graph, ew.Budget(macs=0.8))
    assert probes(space) == []
    ranked = ranked_pick(space)
    assert ranked is not None
    for loss in (1.5, 0.5):  # a ranking that happens to help does not make all widths free
        known = {
            m: Evaluation(str(m), "search", v) for m, v in ((graph.empty, 1.0), (ranked, loss))
        }
        damage = damages(space, known)
        assert damage is not None
        assert all(damage[u] > 0 for u in graph.nested[0])
        assert sum(damage[u] for u in ranked.removed) == pytest.approx(0.5 if loss > 1 else 0.01)
    pick = single_pick(space, known)
    assert pick is not None
    assert graph.nest(pick) == pick


@pytest.mark.parametrize("seed", range(4))
def test_widths_removed_by_bisection_are_those_removed_one_by_one(seed: int) -> None:
    parts = [torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU()]
    model = torch.nn.Sequential(*parts, torch.nn.Linear(16, 2))
    graph = ew.trace(model, (torch.randn(2, 6),), granularity=("layer", "hidden"), slices=8)
    space = Space(graph, ew.Budget(macs=0.5))
    order = np.random.default_rng(seed).permutation(space.free).tolist()
    slow = graph.empty
    for unit in order:
        following = space.next_of(slow, unit)
        if space.excess(slow) > 0 and following is not None:
            more = slow.with_removed(following)
            slow = more if space.connected(more) else slow
    assert space.removing(graph.empty, order) == slow
    assert graph.nest(slow) == slow
