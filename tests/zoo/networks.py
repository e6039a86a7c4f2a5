"""Tiny networks with inputs, answers or weights of a kind of their own, added to the zoo."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from .models import Head, add, conv, rows


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
        return self.leave(y + self.inner(y))


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
        return first - second * third


class Sampled(nn.Module):
    """Maxima and their places, samples at places that are computed, windows as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mix, self.flow = conv(3, 4), conv(4, 4), nn.Conv2d(3, 2, 1)
        self.gate, self.line = nn.Conv2d(2, 1, 1), nn.Linear(16, 16)
        self.leave, self.head = nn.Conv2d(4, 8, 1), Head(2)

    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(self.enter(x), 2, return_indices=True)
        y = F.max_unpool2d(self.mix(y), places, (2, 2))
        h, w = y.shape[2:]
        lines = (torch.linspace(-1, 1, n, dtype=y.dtype, device=y.device) for n in (w, h))
        grid = torch.stack(torch.meshgrid(*lines, indexing="xy"), -1)
        z = F.grid_sample(y, grid + self.flow(x).permute(0, 2, 3, 1), align_corners=True)
        most = torch.max(z, 1, keepdim=True)
        z = y + z * self.gate(torch.cat([most.values, z.mean(1, keepdim=True)], 1)).sigmoid()
        windows = self.line(F.unfold(z, 2, stride=2).transpose(1, 2)).transpose(1, 2)
        z = z + F.fold(windows, (h, w), 2, stride=2)
        return self.head(F.pixel_shuffle(self.leave(z), 2))


class Signal(nn.Module):
    """A spectrum, mixed along time."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner, self.leave = (nn.Conv1d(*c, 1) for c in ((5, 6), (6, 6), (6, 2)))

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(8, dtype=x.dtype, device=x.device)
        y = self.enter(torch.stft(x, 8, 4, window=window, return_complex=True).abs())
        y = y + self.inner(torch.fft.fft(y, dim=-1, norm="ortho").real)
        return self.leave(y)


class Recurrent(nn.Module):
    """Read forth and back, then step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)
        self.forth, self.step = nn.GRU(8, 8, batch_first=True), nn.LSTMCell(8, 5)
        self.last, self.leave = nn.GRUCell(12, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, (hidden, _) = self.both(x)
        y = y + self.forth(y)[0]
        first, _ = self.step(y[:, -1])
        last = self.last(torch.cat([hidden[-1], y[:, 0]], 1), first)
        return self.leave(last)


add("recommender", Recommender, rows(6), lambda: torch.randint(0, 9, (2, 2, 3)))
add("normed", Normed, rows())
add("noisy", Noisy, rows())
add("siamese", Siamese, rows(), rows())
add("sampled", Sampled)
add("signal", Signal, rows(32))
add("recurrent", Recurrent, lambda: torch.randn(2, 5, 6))
