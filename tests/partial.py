"""A model that no front end follows, made of parts that they do."""

import random

import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.testing.laws import random_mask


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.last(torch.relu(self.norm(self.first(x))))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.width = 6

    def forward(self, x):
        return self.blocks(self.stem(x))


class Whole(nn.Module):
    """Decides by values before, between and behind its parts; `before` counts its own calls."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 3, 1)
        self.backbone = Backbone()
        self.neck = Block(6)
        self.head = nn.Linear(self.backbone.width, 4)
        self.rounds = 1

    def forward(self, x, scale=1.0):
        x = self.before(x)
        if x.mean() > 100:
            x = x * 2
        y = self.backbone(x)
        y += 1  # written into what a part gives
        if y.sum() > 0:
            y = y * scale
        for _ in range(self.rounds):
            y = self.neck(y)
        return self.head(y.mean((2, 3)))


def whole(rounds: int = 1) -> Whole:
    """The model with batch norms that have seen something, in eval mode."""
    torch.manual_seed(0)
    model = Whole()
    model.rounds = rounds
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


def traced(model: nn.Module, part, **options) -> ew.Graph:
    """Its graph, with units of many kinds."""
    kinds = ("edge", "layer", "hidden")
    return ew.trace(
        model, torch.randn(2, 3, 8, 8), part=part, granularity=kinds, slices=3, **options
    )


def batches(count: int = 2) -> list:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 4) for _ in range(count)
    ]


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def masks(graph: ew.Graph, count: int = 4) -> list[ew.Mask]:
    rng = random.Random(0)
    return [graph.empty, *(random_mask(graph, rng) for _ in range(count))]
