"""How long tracing takes, and how long it takes to see what a mask leaves and what that costs.

For each network: seconds to trace it and to find its units, and milliseconds of `ew.liveness` and
`ew.cost` (its own liveness included) over random valid masks that remove 1, 4, 8 units and a
quarter of them, all on one thread.

    python benchmarks/speed.py --out benchmarks/results/speed.json
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torchvision

import edgewise as ew
from edgewise.graph.units import with_units
from machine import describe

NETWORKS = {"resnet50": 64, "resnet152": 64, "densenet121": 64, "vit_b_16": 224}  # image size
MASKS, REPEATS = 40, 5


def seconds(task: Callable[[], object]) -> float:
    start = perf_counter()
    task()
    return perf_counter() - start


def random_masks(graph: ew.Graph, rng: np.random.Generator) -> list[ew.Mask]:
    sizes = (1, 4, 8, len(graph.units) // 4)
    return [m for k in sizes for m in ew.sample_masks(graph, MASKS, removed=k, rng=rng)]


def milliseconds(task: Callable[[ew.Graph, ew.Mask], object], graph: ew.Graph, masks: list) -> dict:
    taken = []
    for mask in masks * REPEATS:
        graph.derived.pop(ew.liveness, None)  # what it remembers of masks that it has seen
        taken.append(1e3 * seconds(lambda m=mask: task(graph, m)))
    median, p95 = np.percentile(taken, [50, 95])
    return {"median": round(float(median), 3), "p95": round(float(p95), 3)}


def row(name: str, size: int) -> dict:
    model = getattr(torchvision.models, name)()
    images = torch.randn(1, 3, size, size)
    total = float(np.median([seconds(lambda: ew.trace(model, (images,))) for _ in range(REPEATS)]))
    graph = ew.trace(model, (images,))
    # a new graph each time, as in a trace: none has derived anything yet
    bare = [replace(graph, units=(), granularity=()) for _ in range(REPEATS)]
    units = float(np.median([seconds(lambda b=b: with_units(b, graph.granularity)) for b in bare]))
    masks = random_masks(graph, np.random.default_rng(0))
    return {
        "network": name,
        "image": size,
        "vertices": len(graph.vertices),
        "edges": len(graph.edges),
        "units": len(graph.units),
        "tracing_seconds": round(total - units, 3),
        "units_seconds": round(units, 3),
        "masks": len(masks),
        "liveness_milliseconds": milliseconds(ew.liveness, graph, masks),
        "cost_milliseconds": milliseconds(ew.cost, graph, masks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, size in NETWORKS.items():
        rows.append(row(name, size))
        print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
