"""The network and objective whose studies lie in these folders.

They were written before settings of layers counted, and before modules lay in packages.
`python tests/stored/network.py FOLDER` writes such a study with the edgewise that is installed.
"""

import sqlite3
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.leaky_relu(self.norm(self.first(x)), 0.1))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*[Block() for _ in range(4)])
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def make() -> Network:
    """The same weights every time."""
    generator = torch.Generator().manual_seed(7)
    model = Network().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def examples(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    return images, torch.randint(0, 4, (count,), generator=generator)


def each(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def graph() -> ew.Graph:
    return ew.trace(make(), (examples(0, 2)[0],), granularity=("edge", "hidden"), slices=3)


def objective() -> ew.Objective:
    return ew.Objective(
        [examples(1, 40)],
        loss=each,
        metrics={"hits": lambda out, y: (out.argmax(1) == y).float()},
        recovery=ew.Recovery("batchnorm", [examples(2, 60)]),
        verify=[examples(3, 50)],
        report=[examples(4, 60)],
    )


def write(folder: Path) -> None:
    """A study as `run` leaves it."""
    with TemporaryDirectory() as work:
        stored = Path(work) / "study.sqlite"
        study = ew.Study(graph(), objective(), f"sqlite:///{stored}", "stored")
        study.run(evaluations=24, budget=ew.Budget(macs=0.6), seed=3, surrogate="Degree2")
        with sqlite3.connect(stored) as source, sqlite3.connect(folder / "study.sqlite") as target:
            source.backup(target)


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(Path(sys.argv[1]))
