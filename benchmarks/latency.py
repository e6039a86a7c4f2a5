"""Is a latency budget kept by the real pruned model? Random weights, one thread.

Three networks of torchvision, each with limits of 90, 75 and 60 % of its own latency. Masks are
chosen by `Space.shrink` along random orders of widths and branches, since it is time that is
measured and not accuracy. The predictions of the table alone and the measured latency of the mask
that `ew.latency.settle` ends with are kept; then that mask is measured once more, from the start,
so that what is reported is no measurement that the choice was made by, and once by the clock on the
wall. Each seed is another order, and so another mask at the limit. Pruned and unpruned networks
take turns in one process and medians of their ratios count, since other work on the machine slows
both alike; all but `wall` is the thread's own time, which stands still while others have the
processor.

    python benchmarks/latency.py --out benchmarks/results/latency.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

import edgewise as ew
from edgewise.graph.times import OperatorTimes
from edgewise.latency import measurement
from edgewise.latency.table import Target
from edgewise.search import Space
from machine import describe

LIMITS = (0.9, 0.75, 0.6)
WALL_ROUNDS = 11  # four times as many where they disagree, as they do on a busy machine
KINDS = ("edge", "hidden")


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=128, patch_size=16, num_layers=6, num_heads=4, hidden_dim=256, mlp_dim=1024
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # maker, pixels, batch
    "resnet50": (torchvision.models.resnet50, 160, 1),
    "mobilenet_v3_large": (torchvision.models.mobilenet_v3_large, 224, 1),
    "vision transformer, 6 layers of 256": (vit, 128, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latency.json"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": describe(), "networks": {}}
    begin, cpu = time.perf_counter(), time.process_time()
    for name in options.networks:
        record["networks"][name] = measure(name, options.seeds)
        print(json.dumps(record["networks"][name], indent=1), flush=True)
    record["seconds"] = round(time.perf_counter() - begin)
    record["cpu_seconds"] = round(time.process_time() - cpu)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(name: str, seeds: int) -> dict[str, Any]:
    """The table, and for every limit and seed what was predicted and measured."""
    make, size, batch = NETWORKS[name]
    torch.manual_seed(0)
    example = torch.randn(1, 3, size, size)
    graph = ew.trace(make().eval(), (example,), granularity=KINDS, slices=8, round_to=8)
    return {"size": size, **budgets(graph, batch, seeds)}


def budgets(graph: ew.Graph, batch: int, seeds: int) -> dict[str, Any]:
    """The same for a traced network, where it is."""
    begin = time.perf_counter()
    table = measurement.measure(graph, batch=batch, threads=1)
    spent = time.perf_counter() - begin
    rows = [row(graph, table, limit, seed) for limit in LIMITS for seed in range(seeds)]
    return {
        "batch": batch,
        "units": len(graph.units),
        "unpruned_ms": round(1000 * table.unpruned, 2),
        "operators_over_whole": round(np.array(table.parts).sum() / table.unpruned, 3),
        "table_seconds": round(spent, 1),
        "rows": rows,
    }


def row(
    graph: ew.Graph, table: measurement.LatencyTable, limit: float, seed: int
) -> dict[str, Any]:
    """One mask at one limit."""
    begin = time.perf_counter()

    chosen: list[ew.Mask] = []

    def choose(times: OperatorTimes) -> tuple[ew.Mask, ew.Mask]:
        space = Space(graph, ew.Budget(latency=limit), times=times)
        order = np.random.default_rng(seed).permutation(space.free).tolist()
        chosen.append(space.shrink(order))
        return chosen[-1], chosen[-1]

    mask, clocked = measurement.settle(table, graph, limit, choose)
    spent = time.perf_counter() - begin
    again = measurement.compare(graph, mask, table.target)
    return {
        "limit": limit,
        "seed": seed,
        "table_alone": round(measurement.compare(graph, chosen[0], table.target).median, 4),
        "settled": round(clocked.seconds / clocked.unpruned, 4),
        "tries": clocked.tries,
        "measured": round(again.median, 4),
        "quartiles": [round(x, 4) for x in again.interval],
        "rounds": again.rounds,
        **(by_the_wall(graph, mask, table.target) if table.target.device == "cpu" else {}),
        "over_limit": round(again.median / limit - 1, 4),
        "macs": round(ew.cost(graph, mask).macs / ew.cost(graph).macs, 4),
        "seconds": round(spent, 1),
    }


def by_the_wall(graph: ew.Graph, mask: ew.Mask, target: Target) -> dict[str, Any]:
    """The same by the clock on the wall, which accelerators always go by."""
    watch = measurement.stopwatch(graph, target, WALL_ROUNDS)
    watch.clock = time.perf_counter
    wall = measurement.compare(graph, mask, target, meter=watch)
    return {
        "wall": round(wall.median, 4),
        "wall_quartiles": [round(x, 4) for x in wall.interval],
    }


if __name__ == "__main__":
    main()
