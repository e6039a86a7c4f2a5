"""Which loss to search with where much is to go: ResNet-20, all sets of 1 to 6 of its 9 branches.

Each set is measured on 500 test images, after batch-norm recovery from 500 training images, by its
divergence from the unpruned network's answers: of the outputs as they are ("plain"), and after
temperature scaling ("calibrated"). For each number of branches: the rank correlation of either
loss with accuracy, and the set that it prefers, recovered and after the same 100 steps of
fine-tuning, on 7 000 other images.

    python benchmarks/calibrated.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

import edgewise as ew
from machine import describe
from rivals import channels
from rivals.compare import Judge
from rivals.contestants import Contest, calibrated
from widths import accuracy, imitation

LOSSES = {"plain": imitation, "calibrated": calibrated}
REMOVED = range(1, 7)


def rows(contest: Contest) -> Iterator[dict[str, Any]]:
    graph = ew.trace(contest.model(), (contest.example,), granularity="branch")
    objective = ew.Objective(
        contest.imitated(0, 500),
        loss=imitation,
        metrics={"accuracy": accuracy, **LOSSES},
        recovery=ew.Recovery("batchnorm", [contest.calibration]),
    )
    study, judge = ew.Study(graph, objective), Judge(contest)
    for count in REMOVED:
        masks = [graph.mask(some) for some in combinations(range(len(graph.units)), count)]
        masks = [mask for mask in masks if ew.liveness(graph, mask).connected]
        known = [e.metrics for e in study.evaluate(masks)]
        for loss in LOSSES:
            found, values = [m["accuracy"] for m in known], [m[loss] for m in known]
            best = min(range(len(masks)), key=values.__getitem__)
            small = ew.prune(graph, masks[best])
            channels.recover(small, contest.calibration)
            yield {
                "removed": count, "loss": loss, "masks": len(masks),
                "correlation": float(spearmanr(found, values)[0]),
                "branches": [graph.units[u].name for u in masks[best].removed],
                "plain": known[best]["plain"], "calibrated": known[best]["calibrated"],
                "recovered": judge.measured(small), "healed": judge.healed(small),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibrated.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record: dict[str, Any] = {"machine": describe(), "rows": []}
    for row in rows(Contest("resnet20", 0, options.data, "sqlite://")):
        record["rows"].append(row)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(row["removed"], row["loss"], row["masks"], f"{row['correlation']:.2f}",
              f"{row['recovered']['accuracy']:.4f} {row['healed']['accuracy']:.4f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
