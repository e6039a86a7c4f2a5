"""What an accelerator makes of edgewise: searching, healing and budgets of latency. Random weights.

`search`: seconds a mask of ResNet-56 (CIFAR-10 size, 500 images) and of a vision transformer, by
(a) a loop of plain PyTorch over the masked network, one mask after another, (b) the engine. Wall
time of whole chunks, the ways taking turns, each run once before. `healing`: seconds a step of
ResNet-50 in float32 and bfloat16, with a teacher. `latency`: whether a budget is kept by the real
pruned model, as benchmarks/latency.py has it for a processor.

    python benchmarks/accelerator.py --device cuda --out benchmarks/results/accelerator.json
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional as F

import edgewise as ew
import engine
import latency
from edgewise.evaluation.engine import EngineOptions
from edgewise.evaluation.evaluator import Engine
from machine import describe

ROUNDS, CHUNK, LOOPED = 3, EngineOptions().chunk, 6
BATCHES = (1, 32)
SECTIONS = ("search", "healing", "latency")


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # maker, pixels, images
    "resnet56": (partial(engine.load, 9, None), 32, 500),
    "vision transformer, 6 layers of 256": (latency.vit, 128, 100),
}


def timed(work: Callable[[], Any], device: str) -> float:
    """Wall seconds until the device has done it."""
    wait = torch.get_device_module(device).synchronize
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begin


def search(name: str, recovery: str, device: str) -> dict[str, Any]:
    """Seconds a mask, by each way."""
    make, size, images = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval().to(device)
    graph = ew.trace(model, (torch.randn(1, 3, size, size, device=device),), granularity="edge")
    x = torch.randn(images, 3, size, size)
    batches = [(x, torch.zeros(images, dtype=torch.long))]
    objective = ew.Objective(
        batches,
        F.cross_entropy,
        recovery=ew.Recovery(recovery, None if recovery == "none" else [x]),
    )
    rng = np.random.default_rng(0)
    masks = ew.sample_masks(graph, CHUNK, removed=len(graph.units) // 5, rng=rng)
    there = x.to(device)

    def loop() -> None:
        for network in networks:
            with torch.inference_mode():
                F.cross_entropy(network(there), batches[0][1].to(device)).item()

    networks = [ew.masked(graph, mask).eval() for mask in masks[:LOOPED]]
    ways: dict[str, tuple[Callable[[], Any], int]] = {}
    if recovery == "none":
        ways["loop"] = loop, LOOPED
    measuring = Engine(graph, objective)
    ways["one by one"] = (lambda: list(measuring.evaluate(masks))), len(masks)
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for number in range(ROUNDS + 1):
        for label, (work, count) in ways.items():
            took = timed(work, device) / count
            if number:
                seconds[label].append(took)
    row = {"network": name, "recovery": recovery, "units": len(graph.units), "masks": len(masks)}
    return row | {f"{k}, ms a mask": round(1000 * median(v), 2) for k, v in seconds.items()}


def healing(device: str) -> list[dict[str, Any]]:
    """Seconds a step, float32 and bfloat16 in turns."""
    torch.manual_seed(0)
    teacher = torchvision.models.resnet50().to(device).eval()
    graph = ew.trace(teacher, (torch.randn(1, 3, 224, 224, device=device),))
    small = ew.prune(graph, graph.mask([0]))
    batches = [(torch.randn(64, 3, 224, 224), torch.randint(0, 1000, (64,))) for _ in range(4)]
    settings = ew.Healing(epochs=2)
    seconds: dict[str, list[float]] = {"no": [], "bf16": []}
    for number in range(ROUNDS + 1):
        for precision, times in seconds.items():
            AcceleratorState._reset_state()  # one precision a process, unless it is told to forget
            accelerator = Accelerator(mixed_precision=precision)
            took = timed(
                lambda a=accelerator: ew.heal(
                    small, batches, teacher=teacher, settings=settings, accelerator=a
                ),
                device,
            )
            if number:
                times.append(took / 8)
    return [
        {
            "network": "resnet50",
            "batch": 64,
            "precision": k,
            "ms a step": round(1000 * median(v), 1),
        }
        for k, v in seconds.items()
    ]


def budgets(batch: int, device: str) -> dict[str, Any]:
    """Predicted and measured latency of ResNet-50 at three limits."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50().to(device).eval()
    graph = ew.trace(
        model, (torch.randn(1, 3, 224, 224, device=device),), granularity=latency.KINDS, slices=8,
        round_to=8,
    )  # fmt: skip
    return {"network": "resnet50", **latency.budgets(graph, batch, seeds=1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/accelerator.json"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": describe(options.device)}
    work = {
        "search": [(search, n, r, options.device) for n in NETWORKS for r in ("none", "batchnorm")],
        "healing": [(healing, options.device)],
        "latency": [(budgets, batch, options.device) for batch in BATCHES],
    }
    for section in options.sections:
        record[section] = []
        for function, *arguments in work[section]:
            found = function(*arguments)
            record[section] += found if isinstance(found, list) else [found]
            print(json.dumps(record[section][-1]), flush=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
