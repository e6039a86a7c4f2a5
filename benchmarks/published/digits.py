"""MNIST digits for F-1, and the networks trained on them."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from dags import Network, random_dag

TRAIN, SPLIT = 8000, 1000  # rows: the first train, then two splits of 1 000 measure
EPOCHS, BATCH, RATE = 4, 128, 2e-3
Batch = tuple[Tensor, Tensor]


def load(folder: Path) -> tuple[Batch, Batch, Batch]:
    """Images [n, 1, 28, 28] in 0–1 and labels [n] of training, first and second split."""
    file = np.load(folder / "mnist10k.npz")
    x = torch.from_numpy(file["images"]).float()[:, None] / 255
    y = torch.from_numpy(file["labels"]).long()
    cuts = (slice(0, TRAIN), slice(TRAIN, TRAIN + SPLIT), slice(TRAIN + SPLIT, TRAIN + 2 * SPLIT))
    first, second, third = ((x[c], y[c]) for c in cuts)
    return first, second, third


def trained(steps: int, number: int, seed: int, data: Batch, folder: Path) -> Network:
    """DAG `number` of a size, trained once and kept in `folder`."""
    network = Network(random_dag(steps, np.random.default_rng([seed, steps, number])))
    torch.manual_seed(1000 * seed + number)
    for block in network.blocks:
        for layer in block.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()
    path = folder / f"dag-{seed}-{steps}-{number}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        train(network, *data)
        save_file(network.state_dict(), path)
    network.load_state_dict(load_file(path))
    return network.eval()


def train(network: Network, x: Tensor, y: Tensor) -> None:
    """Adam, without a schedule."""
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(network(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def accuracy(network: Network, x: Tensor, y: Tensor) -> float:
    """The share of right answers."""
    with torch.no_grad():
        return float((network(x).argmax(1) == y).float().mean())
