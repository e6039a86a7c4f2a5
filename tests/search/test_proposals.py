"""How far proposals go, and that they stay where something is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Settings, Space
from edgewise.search.picks import ranked_pick
from edgewise.search.proposals import Region, propose


def test_a_region_grows_with_success_within_limits() -> None:
    region, sizes = Region(), []
    for improved in [True] * 5 + [False] * 7:
        region.learn(improved)
        sizes.append(region.moves)
    assert sizes == [16, 32, 64, 64, 64, 32, 16, 8, 4, 2, 2, 2]


class Optimist:
    """A surrogate that takes every removal for an improvement."""

    def predict_link(self, X, return_std=False):
        mean = -np.asarray(X).sum(1)
        return (mean, np.zeros(len(mean))) if return_std else mean


def test_proposals_over_widths_go_only_so_many_moves() -> None:
    parts = [m for _ in range(4) for m in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(*parts, nn.Linear(16, 4)).eval()
    graph = ew.trace(model, (torch.randn(2, 16),), granularity="hidden", slices=8)
    space = Space(graph, ew.Budget(macs=0.6))
    start = ranked_pick(space)
    assert start is not None
    known = {start: Evaluation(str(start), "search", 1.0)}
    for moves in (1, 3):
        rng = np.random.default_rng(0)
        masks = propose(space, Optimist(), known, Settings(), rng, Region(moves=moves))
        changed = [sum(a != b for a, b in zip(m.bits, start.bits, strict=True)) for m in masks]
        assert masks
        assert all(space.allows(mask) for mask in masks)
        assert max(changed) <= 2 * moves  # a move puts back one slice and removes another
