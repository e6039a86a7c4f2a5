"""Two Ray workers against one serial process, one torch thread each, on two cores.

ResNet-56 on CIFAR-10 (JPEG copy), random masks that remove 8 of 27 residual branches, 500 images,
batch-norm recovery. Both measure the same masks in turn, block by block, so that what else the
machine does meets both; the losses must be equal to the last bit. Starting Ray, sending the job
and importing torch in the workers come before and are reported apart.

    python benchmarks/executors.py --data ../shared/data --out benchmarks/results/executors.json
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from safetensors.torch import load_file

import edgewise as ew
from branches import make_objective
from edgewise.evaluation.evaluator import Executor, Serial
from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import resnet56

REMOVED = 8


def measured(executor: Executor, masks: list[ew.Mask]) -> tuple[float, dict[str, float | None]]:
    begin = perf_counter()
    records = [outcome.evaluation for outcome in executor.evaluate(masks)]
    return perf_counter() - begin, {record.mask: record.loss for record in records}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--masks", type=int, default=32, help="in a block")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/executors.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = resnet56()
    model.load_state_dict(load_file(options.data / "resnet56_cifar10.safetensors"))
    graph = ew.trace(model.eval(), (torch.randn(2, 3, 32, 32),), granularity="branch")
    objective = make_objective(options.data, "batchnorm", 0)
    rng = np.random.default_rng(0)
    masks = ew.sample_masks(graph, options.blocks * options.masks, removed=REMOVED, rng=rng)

    begin = perf_counter()
    serial, workers = Serial(graph, objective), ew.Ray(workers=2)(graph, objective)
    while len(workers.pids) < 2:
        list(workers.evaluate([graph.empty]))
    started = perf_counter() - begin
    rows = []
    for block in range(options.blocks):
        some = list(masks[block * options.masks : (block + 1) * options.masks])
        ways = {"serial": serial, "ray": workers}
        found = {name: measured(ways[name], some) for name in sorted(ways, reverse=block % 2 == 0)}
        assert found["serial"][1] == found["ray"][1], "losses differ"
        row = {name: round(seconds, 2) for name, (seconds, _) in found.items()}
        row |= {"ratio": round(row["serial"] / row["ray"], 3), "load": os.getloadavg()[0]}
        rows.append(row)
        print(row, flush=True)
    workers.close()
    result = {
        "machine": describe(),
        "masks_a_block": options.masks,
        "start_seconds": round(started, 1),
        "blocks": rows,
        "ratio": round(sum(r["serial"] for r in rows) / sum(r["ray"] for r in rows), 3),
        "median_ratio": round(median(r["ratio"] for r in rows), 3),
        "equal_to_the_last_bit": True,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['ratio']:.2f} times as fast")


if __name__ == "__main__":
    main()
