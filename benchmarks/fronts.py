"""Fronts of predicted loss and two costs: NSGA-II beside the ε-constraint method on a grid.

A GraphGP fitted to 500 measured masks of ResNet-56 (27 branches, recovered; recovered.py) is
minimised against MACs and parameters. The grid solves at every pair of limits. Compared are the
shares of a box that the fronts dominate, the numbers of points, and processor seconds.

    python benchmarks/fronts.py --out benchmarks/results/fronts.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

import edgewise as ew
from edgewise.search import Point, Space, front, trade_offs
from machine import describe

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from resnet_cifar import ResNet  # noqa: E402

COSTS = ("macs", "params")
GRIDS, SECONDS, SEEDS = (5, 8), 2.0, 3
POINTS = 200_000  # of the box


def rows(points: Sequence[Point]) -> np.ndarray:
    return np.array([[p.predicted, *(getattr(p.cost, name) for name in COSTS)] for p in points])


def share(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The part of the box between two corners in which something is dominated."""
    box = low + np.random.default_rng(0).random((POINTS, len(low))) * (high - low)
    hit = np.zeros(POINTS, bool)
    for value in values:
        hit |= (box >= value).all(1)
    return float(hit.mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fronts.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    data = np.load(ROOT / "benchmarks/results/resnet56_recovered.npz")
    graph = ew.trace(ResNet(9).eval(), (torch.randn(1, 3, 32, 32),), granularity="branch")
    space = Space(graph, ew.Budget(macs=0.9))
    model = ew.surrogates.GraphGP(graph).fit(data["masks"], data["loss"])
    known = [graph.mask(bits=row) for row in data["masks"]]
    fronts: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}

    def measure(name: str, find: Any) -> None:
        begin = process_time()
        points = find()
        seconds.setdefault(name, []).append(process_time() - begin)
        fronts.setdefault(name, []).append(rows(points))

    for size in GRIDS:
        limits = np.linspace(0.9, 0.2, size).tolist()
        budgets = [ew.Budget(macs=a, params=b) for a, b in product(limits, limits)]
        measure(
            f"grid of {size * size}",
            lambda budgets=budgets: front(space, model, budgets, known=known, time_limit=SECONDS),
        )
    for seed in range(SEEDS):
        measure("NSGA-II", lambda s=seed: trade_offs(space, model, COSTS, known=known, seed=s))
    every = np.vstack([front for several in fronts.values() for front in several])
    low, high = every.min(0), every.max(0)
    table = [
        {
            "method": name,
            "points": [len(front) for front in several],
            "share": [round(share(front, low, high), 4) for front in several],
            "seconds": [round(s, 1) for s in seconds[name]],
        }
        for name, several in fronts.items()
    ]
    best = round(share(every, low, high), 4)
    text = json.dumps({"machine": describe(), "together": best, "rows": table}, indent=1)
    out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
