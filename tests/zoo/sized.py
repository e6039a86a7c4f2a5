"""Tiny models whose sizes are all read from their inputs: any batch, length, height and width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .models import ZOO, images


class Heads(nn.Module):
    """Attention with views, whose sizes are read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, 4, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return x + self.o(y)


class Merged(Heads):
    """The batch and the heads in one axis, and the channels cut by `unflatten`."""

    def forward(self, x: Tensor) -> Any:
        b, n, c = x.shape
        parts = (part(x).unflatten(2, (4, c // 4)) for part in (self.q, self.k, self.v))
        q, k, v = (part.permute(0, 2, 1, 3).flatten(0, 1) for part in parts)
        a = torch.bmm(q, k.mT).softmax(-1)
        return x + self.o(torch.bmm(a, v).view(b, 4, n, -1).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """Squeeze and excitation with views."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.down, self.up = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        b, c, h, w = y.shape
        mean = y.view(b, c, h * w).sum(2) / (h * w)
        gate = torch.sigmoid(self.up(F.relu(self.down(mean)))).view(b, c, 1, 1)
        return self.last(y * gate + y)


class Pyramid(nn.Module):
    """Sizes read from what may be absent: after a stride, and of a sum that only broadcasts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.a, self.b, self.o = (nn.Conv2d(8, 8, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = F.relu(self.down(x))
        z = self.a(y)
        up = F.interpolate(F.avg_pool2d(x, 4), size=z.shape[2:])
        y = up + z + self.b(up.mean((2, 3), keepdim=True))
        y = y + torch.arange(z.shape[3]).to(y.dtype) * 0.1
        return self.o(y * (1 / z.numel()) + torch.zeros_like(z))


class Normed(nn.Module):
    """A norm over channels and places together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 12, 1), nn.Conv1d(12, 4, 1)

    def forward(self, x: Tensor) -> Any:
        y = F.relu(self.a(x))
        return x + self.b(F.layer_norm(y, y.shape[1:]))


class Branches(nn.Module):
    """Widths behind a concatenation, as detectors have them, flattened at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Any:
        first, second = self.a(x).chunk(2, 1)
        y = torch.cat([first, second, self.b(second)], 1)
        return self.c(y.view(y.size(0), y.size(1), -1).mean(-1)), y.flatten(2)


def _rows() -> Tensor:
    return torch.randn(2, 5, 16)


ZOO["heads"] = lambda: (Heads(), (_rows(),))
ZOO["merged_heads"] = lambda: (Merged(), (_rows(),))
ZOO["gated_views"] = lambda: (Gated(), (images(),))
ZOO["pyramid"] = lambda: (Pyramid(), (images(),))
ZOO["branches"] = lambda: (Branches(), (images(),))
