"""A model whose inputs come by name is measured, scored and healed as by place."""

from collections import UserDict

import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.study import scores


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = (self.left(ids) + F.relu(self.right(ids))) * mask
        return self.head(hidden)


torch.manual_seed(0)
MODEL = Pair().eval()
IDS, MASK = torch.randn(40, 4), torch.rand(40, 1)
Y = torch.randint(0, 3, (40,))
BY_NAME = [(UserDict(mask=MASK, ids=IDS), Y)]  # like what tokenizers give, in an order of its own
BY_PLACE = [((IDS, MASK), Y)]


def test_both_ways_measure_the_same() -> None:
    graph = ew.trace(MODEL, (), {"ids": IDS, "mask": MASK})
    losses = []
    for batches in (BY_NAME, BY_PLACE):
        recovery = ew.Recovery("linear", batches)
        study = ew.Study(graph, ew.Objective(batches, F.cross_entropy, recovery=recovery))
        losses.append([e.loss for e in study.evaluate([graph.mask(), graph.mask([0])])])
        assert study.objective.score(MODEL, "search").loss == losses[-1][0]
    assert losses[0] == losses[1]


def test_importance_and_scores_take_both() -> None:
    importances = [ew.importance.taylor(b, F.cross_entropy) for b in (BY_NAME, BY_PLACE)]
    graphs = [
        ew.trace(MODEL, (IDS, MASK), granularity=("edge", "hidden"), importance=i)
        for i in importances
    ]
    assert graphs[0].fingerprint == graphs[1].fingerprint
    found = [scores.taylor(graphs[0], b, F.cross_entropy) for b in (BY_NAME, BY_PLACE)]
    assert list(found[0]) == list(found[1])


def test_healing_takes_both() -> None:
    graph = ew.trace(MODEL, (IDS, MASK))
    small = ew.prune(graph, graph.mask([0]))
    healed = [
        ew.heal(small, b, teacher=MODEL, settings=ew.Healing(epochs=2))(IDS, MASK)
        for b in (BY_NAME, BY_PLACE)
    ]
    assert torch.equal(healed[0], healed[1])
    assert not torch.equal(healed[0], small(IDS, MASK))
