"""Does time fall with MACs? ResNet-50 (random weights, 224 pixels), every width cut alike.

All hidden widths lose the same share, what remains being a multiple of 8 channels. Unpruned and
pruned models take turns in one process, so that a busy machine slows them alike; the fastest of
the rounds counts.

    python benchmarks/width_latency.py --out benchmarks/results/width_latency.json
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torchvision

import edgewise as ew
from machine import describe

BATCH, ROUNDS, CUTS = 32, 5, (2, 4, 6)  # slices of 8 removed of every width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/width_latency.json"))
    parser.add_argument("--kinds", nargs="+", default=["hidden", "channels"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    x = torch.randn(BATCH, 3, 224, 224)
    graph = ew.trace(model, (x[:1],), granularity=options.kinds, slices=8, round_to=8)
    masks = [graph.mask(u for group in graph.nested for u in group[:cut]) for cut in (0, *CUTS)]
    models = [ew.prune(graph, mask) for mask in masks]
    best = [float("inf")] * len(models)
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for i, one in enumerate(models):
                begin = time.perf_counter()
                one(x)
                best[i] = min(best[i], time.perf_counter() - begin)
    whole, rows = ew.cost(graph).macs, []
    for mask, seconds in zip(masks, best, strict=True):
        macs = ew.cost(graph, mask).macs / whole
        row = {"macs": round(macs, 4), "time": round(seconds / best[0], 4), "seconds": seconds}
        rows.append({**row, "time_per_mac": round(seconds / best[0] / macs, 3)})
        print(rows[-1], flush=True)
    record = {"machine": describe(), "batch": BATCH, "kinds": options.kinds, "rows": rows}
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
