"""A U-Net that finds discs in noise, pruned with a loss and a metric of its own.

python examples/unet.py

Concatenated skips need no care: what a removal takes from them, it takes from their reader, too.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew

Batches = list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer)
        self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, padding=1), nn.BatchNorm2d(outer)
        self.shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class UNet(nn.Module):
    """Three resolutions; the decoder reads the encoder's features beside its own."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        self.down = nn.ModuleList(Block(a, b) for a, b in pairwise((1, *widths)))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.down[0](x), []
        for block in self.down[1:]:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0)], 1))
        return self.head(x)


def discs(count: int, seed: int) -> Batches:
    """Noisy images [batch, 1, 32, 32] with two discs each, and where these are (1 or 0)."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, 2, 1, 1, generator=random) * 32
    radius = 3 + 5 * torch.rand(count, 2, 1, 1, generator=random)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    away = torch.hypot(rows - centre[:, :, 0], columns - centre[:, :, 1])
    where = (away < radius).any(1, keepdim=True).float()
    images = where + torch.randn(where.shape, generator=random)
    return list(zip(images.split(32), where.split(32), strict=True))


def iou(outputs: Tensor, targets: Tensor) -> Tensor:
    """Intersection over union of what is found and what is there, one value an image."""
    found, there = outputs > 0, targets > 0
    both, either = (found & there).sum((1, 2, 3)), (found | there).sum((1, 2, 3))
    return (both + 1) / (either + 1)


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of pixels plus Dice's loss, one value an image (Milletari et al. 2016)."""
    pixels = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean((1, 2, 3))
    found = outputs.sigmoid()
    both, all_of_both = (found * targets).sum((1, 2, 3)), (found + targets).sum((1, 2, 3))
    return pixels + 1 - (2 * both + 1) / (all_of_both + 1)


def train(model: nn.Module, batches: Batches, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            losses(model(x), y).mean().backward()
            optimizer.step()
    return model.eval()


def main(evaluations: int = 24, epochs: int = 5) -> None:
    """Print what was removed, and cost, loss and IoU before and after."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = discs(384, seed=0)
    model = train(UNet(), training, epochs)

    graph = ew.trace(model, training[0][0][:2], granularity=("branch", "hidden"), slices=4)
    objective = ew.Objective(
        discs(128, seed=1),
        loss=losses,
        metrics={"iou": iou},
        recovery=ew.Recovery("linear", training[:4]),
        verify=discs(128, seed=2),
        report=discs(128, seed=3),
    )
    study = ew.Study(graph, objective)
    study.run(evaluations, ew.Budget(macs=0.5))
    plan = study.plan()

    small = ew.prune(graph, plan)
    settings = ew.Healing(epochs=2, optimizer="adamw", lr=2e-3)
    healed = ew.heal(small, training, loss=losses, settings=settings)

    print(f"removed {len(plan.removed)} of {len(graph.units)} units:")
    print(*(f"  {label}" for label in plan.labels), sep="\n")
    print(f"MACs {plan.before.macs:,} -> {plan.after.macs:,}")
    print(f"parameters {plan.before.params:,} -> {plan.after.params:,}")
    for name, network in {"unpruned": model, "pruned": small, "healed": healed}.items():
        score = objective.score(network, "report")
        print(f"{name:9} loss {score.loss:.3f}  IoU {score.metrics['iou']:.3f}")


if __name__ == "__main__":
    main()
