"""Moves say what the space says, with fewer counts."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import DenseNet

import edgewise as ew
from edgewise.search import Space
from edgewise.search.moves import NONE, Moves, moves_of

NETWORK = DenseNet(growth_rate=4, block_config=(4, 4), num_init_features=8, num_classes=2)
GRAPH = ew.trace(NETWORK.eval(), (torch.randn(1, 3, 32, 32),))


def masks(count: int, seed: int) -> list[ew.Mask]:
    rng = np.random.default_rng(seed)
    removed = int(rng.integers(len(GRAPH.units) // 4, len(GRAPH.units) // 2))
    return ew.sample_masks(GRAPH, count, removed=removed, rng=rng)


def moves(space: Space, mask: ew.Mask) -> Moves:
    return moves_of(space, mask, (space.gone(mask), space.here(mask)), frozenset(), {})


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1.0))
@settings(max_examples=20, deadline=None)
def test_what_moves_allow_the_space_allows(seed: int, share: float) -> None:
    space = Space(GRAPH, ew.Budget(macs=share))
    mask = masks(1, seed)[0]
    near = moves(space, mask)
    order = np.random.default_rng(seed).permutation(len(near)).tolist()
    allowed = {i for i in order if near.allowed(i)}
    assert allowed <= {i for i in order if space.allows(near[i])}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_no_swap_is_lost_because_others_disconnect(seed: int) -> None:
    space = Space(GRAPH, ew.Budget(macs=1.0))
    mask = masks(1, seed)[0]
    near = moves(space, mask)
    order = np.random.default_rng(seed).permutation(len(near)).tolist()
    assert [near.allowed(i) for i in order] == [space.connected(near[i]) for i in order]


def test_swaps_that_cannot_connect_are_not_counted_one_by_one() -> None:
    space = Space(GRAPH, ew.Budget(macs=1.0))
    rng = np.random.default_rng(0)
    tried, counted = 0, 0
    for mask in masks(40, 1):
        near = moves(space, mask)
        bridges = [u for u in space.here(mask) if not space.connected(mask.with_removed(u))]
        before = len(space._costs)
        for i in rng.permutation(len(near)).tolist():
            if near.swaps[i][0] != NONE and near.swaps[i][1] in bridges:
                tried += not near.allowed(i)
        counted += len(space._costs) - before
    assert tried > counted > 0


def test_swaps_that_exceed_the_budget_are_told_by_what_their_halves_cost() -> None:
    full = Space(GRAPH, ew.Budget(macs=1.0))
    mask = max(masks(40, 2), key=lambda m: len(full.gone(m)))
    cost = full.cost(mask)
    assert cost is not None
    space = Space(GRAPH, ew.Budget(macs=cost.macs))  # so whatever costs more is refused
    assert not space.adds_up[0]
    near = moves(space, mask)
    swaps = [i for i in range(len(near)) if NONE not in near.swaps[i]]
    allowed = sum(map(near.allowed, swaps))
    counted = sum(np.not_equal(m.bits, mask.bits).sum() == 2 for m in space._costs)
    assert 4 * (counted - allowed) < len(swaps) - allowed
