"""Tiny networks with inputs, answers or weights of a kind of their own, added to the zoo."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from .models import add, rows


class Recommender(nn.Module):
    """Numbers and bags of categories; every two of their vectors meet in a product."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.numbers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, width), nn.ReLU())
        self.bags = nn.ModuleList(nn.EmbeddingBag(9, width, mode=m) for m in ("sum", "mean"))
        self.top = nn.Sequential(nn.Linear(width + 3, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        x = self.numbers(numbers)
        found = [x] + [bag(categories[:, i]) for i, bag in enumerate(self.bags)]
        vectors = torch.stack(found, 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        i, j = (line.clone() for line in torch.tril_indices(3, 3, -1))
        return torch.sigmoid(self.top(torch.cat([x, products[:, i, j]], 1)))


class Normed(nn.Module):
    """Weights that are computed at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = weight_norm(nn.Linear(6, 8)), spectral_norm(nn.Linear(8, 3))
        self.inner = nn.Sequential(spectral_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.enter(x), 0.1)
        return self.leave(y + self.inner(y))  # type: ignore[no-any-return]


class Noisy(nn.Module):
    """Noise in train mode only; two answers, and nothing between them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.kind, self.size = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> tuple[Tensor, None, Tensor]:
        if self.training:
            x = x + 0.01 * torch.randn_like(x)
        y = torch.relu(self.enter(x))
        y = y + self.inner(y)
        return self.kind(y), None, self.size(y) * self.scale


class Siamese(nn.Module):
    """Joins batches, and takes them apart again."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 3)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = self.enter(torch.cat([x, torch.relu(x), y], 0))
        first, second, third = self.leave(z + self.inner(z)).chunk(3, 0)
        return first - second * third  # type: ignore[no-any-return]


add("recommender", Recommender, rows(6), lambda: torch.randint(0, 9, (2, 2, 3)))
add("normed", Normed, rows())
add("noisy", Noisy, rows())
add("siamese", Siamese, rows(), rows())
