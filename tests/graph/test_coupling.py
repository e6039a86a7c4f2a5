"""Which channels stand or fall together, on models whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.graph.coupling import Coupling, couple
from edgewise.testing.laws import MASK_LAWS
from zoo import build


class Residual(nn.Module):
    """Two branches onto one stream, then a concatenation with a third."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.side, self.head = nn.Conv2d(3, 2, 1), nn.Conv2d(6, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = self.stem(x)
        stream = stream + self.branch(stream)
        return self.head(torch.cat([stream, self.side(x)], 1))


class Groups(nn.Module):
    """A convolution in two groups between two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1, groups=2)
        self.c = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(self.a(x))))


class Shuffle(nn.Module):
    """A channel shuffle, after which no axis has a channel of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        n, c, h, w = y.shape
        return self.c(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class SharedKeys(nn.Module):
    """Four query heads that share two heads of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, -1, 2).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(n, t, 8))


def found(model: nn.Module, *shape: int) -> tuple[Coupling, dict[str, list[int]]]:
    graph = ew.trace(model.eval(), (torch.randn(2, *shape),), granularity="raw")
    coupling = couple(graph)
    named = {graph.vertices[p.vertex].name: ids.tolist() for p, ids in coupling.writes.items()}
    return coupling, named


def test_computed_weights_are_refused_with_the_reason() -> None:
    for frontend, count in ("torch.fx", 2), ("torch.export", 3):  # weight norm can be cut in place
        model, args = build("normed")
        graph = ew.trace(model, args, granularity=("edge", "hidden"), frontend=frontend)
        reasons = list(graph.refused.values())
        assert sum("computed at every call as by spectral norm" in why for why in reasons) == count


def test_summands_go_together_and_pieces_apart() -> None:
    coupling, writes = found(Residual(), 3, 5, 5)
    assert writes["stem"] == writes["branch"]
    assert len(set(writes["stem"])) == 4
    assert not set(writes["stem"]) & set(writes["side"])
    assert writes["head"] == [-1] * 5
    assert set(writes["stem"]) <= coupling.joined


def test_groups_of_a_convolution_go_as_a_whole() -> None:
    _, writes = found(Groups(), 3, 5, 5)
    first, *_, last = writes["a"]
    assert writes["a"] == [first, first, last, last]
    assert writes["b"] == [first] * 3 + [last] * 3
    assert first != last


def test_liveness_has_the_last_word_on_a_shuffle() -> None:
    args = (torch.randn(2, 3, 5, 5),)
    with pytest.raises(ew.errors.NoUnitsError, match="needs them in full"):
        ew.trace(Shuffle(), args, granularity=("hidden", "channels"))


def test_shared_keys_go_with_all_the_heads_they_serve() -> None:
    coupling, writes = found(SharedKeys(), 5, 8)
    first, second = writes["k"][0], writes["k"][2]
    assert writes["k"] == writes["v"] == [first] * 2 + [second] * 2
    assert writes["q"] == [first] * 4 + [second] * 4
    assert {first, second} <= coupling.heads
    assert np.isin([first, second], next(iter(coupling.reads.values()))).all()
    graph = ew.trace(SharedKeys().double(), (torch.randn(2, 5, 8).double(),), granularity="heads")
    for law in MASK_LAWS:
        law(graph, graph.mask([0]))
