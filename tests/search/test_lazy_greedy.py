"""Greedy removal with few evaluations, beside the one that measures everything again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Space, answered, search
from edgewise.search.lazy_greedy import by_price, chain
from edgewise.search.picks import damages
from edgewise.study.bench import baselines

LAYERS = 10


class Ladder(nn.Module):
    """Equal residual branches, each of which may go."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


@pytest.fixture(scope="module")
def ladder() -> ew.Graph:
    graph = ew.trace(Ladder(), (torch.randn(2, 3),), granularity="edge")
    return graph.select(lambda unit: "layers" in unit.name and "->" not in unit.name)


class Losses:
    """A loss of masks by single harms and what pairs add; remembers what was asked."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.alone = rng.exponential(size=LAYERS)
        self.pairs = np.triu(rng.exponential(0.3, size=(LAYERS, LAYERS)), 1)
        self.known: dict[ew.Mask, Evaluation] = {}

    def __call__(self, mask: ew.Mask) -> float:
        bits = np.array(mask.bits, float)
        return float(1 + bits @ self.alone + bits @ self.pairs @ bits)

    def measure(self, masks) -> list[Evaluation]:
        found = {m: Evaluation(str(m), "search", self(m)) for m in masks}
        self.known |= found
        return list(found.values())


def chained(space: Space, losses: Losses, removals: int, most: int) -> tuple[ew.Mask, int]:
    """The last mask that a chain asks for, and how many it asks for."""
    graph = space.graph
    losses.measure([graph.empty, *(graph.mask([u]) for u in range(LAYERS))])
    before, masks = len(losses.known), []
    for masks in chain(space, losses.known, damages(space, losses.known), removals, most):
        losses.measure(masks)
    return masks[-1], len(losses.known) - before


@given(st.integers(0, 10**6), st.integers(2, 7))
def test_a_chain_is_greedy_removal_where_harm_only_grows(
    ladder: ew.Graph, seed: int, removals: int
) -> None:
    """Minoux 1978: old harms are bounds, so what is not measured again would not be removed."""
    space = Space(ladder, ew.Budget(units=LAYERS - removals))
    losses, all_of_them = Losses(seed), Losses(seed)
    mask, asked = chained(space, losses, removals, most=1000)
    answered(baselines.greedy(space, 1000), lambda ask: all_of_them.measure(ask.masks))
    assert len(mask.removed) == removals
    finals = [m for m in all_of_them.known if len(m.removed) == removals]
    assert losses(mask) == min(all_of_them.known[m].loss for m in finals)
    assert asked <= len(all_of_them.known) - LAYERS - 1


def test_a_chain_sees_removals_that_undo_harm(ladder: ew.Graph) -> None:
    """Two units that are cheap only together: the other's harm is measured again and is less."""
    losses = Losses(0)
    losses.alone[:] = np.arange(1, LAYERS + 1)
    losses.pairs[:] = 0
    losses.pairs[0, 3] = -3.9  # with 0 gone, 3 costs .1 and not 4, and 1 still costs 2
    mask, _ = chained(Space(ladder, ew.Budget(units=LAYERS - 2)), losses, 2, 1000)
    assert mask.removed == (0, 3)


@pytest.mark.parametrize("most", [0, 11, 12, 16, 100])
def test_a_chain_keeps_to_its_evaluations(ladder: ew.Graph, most: int) -> None:
    """Too few for the way: not begun; used up on the way: the mask by what is known then."""
    space, losses = Space(ladder, ew.Budget(units=LAYERS - 4)), Losses(3)
    if most < 12:
        with pytest.raises(IndexError):
            chained(space, losses, 4, most)
        return
    mask, asked = chained(space, losses, 4, most)
    assert asked <= most + 1
    assert len(mask.removed) == 4


def test_a_chain_ends_when_it_gets_no_answer(ladder: ew.Graph) -> None:
    space, losses = Space(ladder, ew.Budget(units=5)), Losses(1)
    losses.measure([ladder.empty, *(ladder.mask([u]) for u in range(LAYERS))])
    asked = list(chain(space, losses.known, damages(space, losses.known), 5, 100))
    assert len(asked) == 1


def test_what_fails_is_not_removed(ladder: ew.Graph) -> None:
    space, losses = Space(ladder, ew.Budget(units=LAYERS - 3)), Losses(4)
    cheapest = by_price(space, range(LAYERS), dict(enumerate(losses.alone)))
    losses.measure([ladder.empty, *(ladder.mask([u]) for u in range(LAYERS))])
    masks: list[ew.Mask] = []
    for masks in chain(space, losses.known, damages(space, losses.known), 3, 100):
        for mask in masks:
            if mask.bits[cheapest[1]] and mask.bits[cheapest[0]]:
                bad = Evaluation(str(mask), "search", None, status="failed", error="")
                losses.known[mask] = bad
            else:
                losses.measure([mask])
    assert cheapest[1] not in masks[-1].removed
    assert len(masks[-1].removed) == 3


def test_a_search_starts_from_where_greedy_removal_ends(ladder: ew.Graph) -> None:
    space, losses = Space(ladder, ew.Budget(units=LAYERS - 4)), Losses(5)

    def fit(evaluations, space):
        X = ladder.matrix([ladder.mask(bits=e.mask) for e in evaluations])
        return ew.surrogates.Linear().fit(X, [e.loss for e in evaluations])

    phases: dict[str, int] = {}

    def answer(ask):
        phases[ask.phase] = phases.get(ask.phase, 0) + len(ask.masks)
        return losses.measure(ask.masks)

    found = answered(search(space, fit, seed=0, limit=50), answer)
    mask, asked = chained(space, Losses(5), 4, 1000)
    assert str(mask) in {e.mask for e in found}
    assert 0 < phases["greedy removal"] <= asked
    assert sum(phases.values()) == len(found) <= 50
