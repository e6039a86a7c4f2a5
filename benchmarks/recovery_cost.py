"""What one evaluation with linear recovery costs, in evaluations with batch-norm recovery.

Four networks with drawn weights and data, since time depends on neither; a mask that removes one of
the first branches and a part of every hidden width, so that nearly every layer is behind a removal.
CPU seconds of one mask on as many search as calibration examples, both kinds in turns in one
process, and the most memory that linear recovery took beyond that of batch-norm recovery.

    python benchmarks/recovery_cost.py
    python benchmarks/recovery_cost.py --only resnet18 --rounds 1
"""

import argparse
import json
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from time import process_time

import timm
import torch
import torchvision
from torch import Tensor, nn

import edgewise as ew
from edgewise.evaluation.evaluator import Engine
from edgewise.evaluation.recover import estimate
from machine import describe

RESULTS = Path(__file__).parent / "results"
KINDS = ("batchnorm", "linear")


class Block1d(nn.Module):
    """A residual block of a network for signals, its kernels as long as a heartbeat."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=kernel // 2 - 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def signals(width: int = 8, kernel: int = 512, blocks: int = 3) -> nn.Module:
    """Kernels of 512 samples; [examples, 1, length] to 5 classes."""
    return nn.Sequential(
        nn.Conv1d(1, width, kernel, stride=2, padding=kernel // 2),
        *[Block1d(width, kernel) for _ in range(blocks)],
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, 5),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet18": (torchvision.models.resnet18, (3, 64, 64), 500),
    "resnet50": (torchvision.models.resnet50, (3, 64, 64), 500),
    "vit_b": (lambda: timm.create_model("vit_base_patch16_224"), (3, 224, 224), 64),
    "signals": (signals, (1, 2048), 300),
}


def loss(out: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(out, targets, reduction="none")


def chosen(graph: ew.Graph) -> ew.Mask:
    """Without the second of the removable branches, and without the first of every width."""
    branches = [u.name for u in graph.units if u.kind == "edge" and u.cost.macs]
    first: dict[tuple, str] = {}
    for unit in graph.units:
        if unit.kind == "hidden":
            first.setdefault(min(graph.starts(unit.removal)), unit.name)
    return graph.mask([branches[1], *first.values()])


def measured(name: str, rounds: int) -> dict:
    """One network's row."""
    make, shape, examples = NETWORKS[name]
    torch.manual_seed(0)
    data, calibration = torch.randn(examples, *shape), torch.randn(examples, *shape)
    graph = ew.trace(make().eval(), (data[:2],), granularity=("edge", "hidden"))
    mask = chosen(graph)
    pairs = [(data, torch.zeros(examples, dtype=torch.long))]
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    peak = dict.fromkeys(KINDS, 0.0)
    for _ in range(rounds):
        for kind in KINDS:
            recovery = ew.Recovery(kind, [calibration])
            engine = Engine(graph, ew.Objective(pairs, loss, recovery=recovery))
            begin = process_time()
            (outcome,) = engine.evaluate([mask])
            seconds[kind].append(process_time() - begin)
            peak[kind] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            assert outcome.evaluation.ok, outcome.evaluation.error
    told = estimate(graph, ew.Recovery("linear", [calibration]))
    middle = {kind: statistics.median(times) for kind, times in seconds.items()}
    return {
        "network": name,
        "input": list(shape),
        "examples": examples,
        "rounds": rounds,
        "removed_units": len(mask.removed),
        "seconds": {kind: round(value, 2) for kind, value in middle.items()},
        "ratio": round(middle["linear"] / middle["batchnorm"], 2),
        "told_seconds": round(told.seconds, 2),
        "told_mib": round(told.bytes / 2**20),
        "peak_mib": {kind: round(value) for kind, value in peak.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.only:
        rows.append(measured(name, options.rounds))
        print(rows[-1], flush=True)
        if options.out:
            text = json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n"
            options.out.write_text(text)


if __name__ == "__main__":
    main()
