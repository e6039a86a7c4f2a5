"""FastNAS of NVIDIA's Model Optimizer, as its examples use it, for benchmarks.

    pip install nvidia-modelopt==0.47.0 torchprofile==0.0.4 --no-deps
    pip install omegaconf pulp nvidia-ml-py

It scores narrower layers one by one, by accuracy on the search images after its own estimate of
the statistics of batch norms, and takes the widths whose worst loss of accuracy is least within
the budget. Its rules keep multiples of 32 channels by default, of convolutions and of norms, which
leaves a network of 16 to 64 channels hardly a choice: here they keep multiples of 4.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rivals import channels

DIVISOR, BATCH = 4, 100


def rules() -> dict[str, Any]:
    """Its default rules, with as many widths as this network has multiples of DIVISOR."""
    from modelopt.torch.prune.fastnas import FastNASConfig

    found: dict[str, Any] = FastNASConfig().model_dump(by_alias=True)
    for rule in (r for rules in found.values() if rules for r in rules.values() if r):
        rule |= {name: DIVISOR for name in rule if name.endswith("_divisor")}
    return found


def pruned(
    make: Any, example: Tensor, images: Tensor, search: Sequence[tuple[Tensor, Tensor]],
    targets: Sequence[float],
) -> Iterator[tuple[float, nn.Module, int]]:  # fmt: skip
    """(target, pruned network, networks measured so far) for every share of the FLOPs.

    Args:
        make: makes the network of examples/resnet_cifar.py.
        example: one input.
        images: for the statistics of batch norms.
        search: batches to score on.
        targets: shares to reach.
    """
    import modelopt.torch.prune as mtp

    measured = 0

    def accuracy(model: nn.Module) -> float:
        nonlocal measured
        measured += 1
        model.eval()
        with torch.no_grad():
            hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in search)
        return hits / sum(len(y) for _, y in search)

    with tempfile.TemporaryDirectory() as folder:
        config = {
            "data_loader": images.split(BATCH), "collect_func": lambda batch: batch,
            "score_func": accuracy, "checkpoint": str(Path(folder) / "scores.pth"),
            "verbose": False,
        }  # fmt: skip
        for target in targets:
            small, _ = mtp.prune(
                channels.with_shortcuts(make()), mode=[("fastnas", rules())], dummy_input=example,
                constraints={"flops": f"{100 * target:g}%"}, config=config,
            )  # fmt: skip
            yield target, small, measured
