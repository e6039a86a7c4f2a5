"""ResNet-20: how a search does with each surrogate, the best mask being known.

All 512 masks of 9 branches are measured (`exhaustive.py`), so that a search of at most 60
evaluations asks a table. A search succeeds if its best measured mask is within 2 % of the best one
there is; the seconds are those of fitting and proposing. The forest is scikit-learn's with 20 trees
and its own settings otherwise, as a user would give it.

    python benchmarks/searching.py --data ../shared/data
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import RandomForestRegressor

import edgewise as ew
from edgewise.search import Space, search
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import NAMES, searcher
from exhaustive import CLOSE, LIMIT, asked, best_of, measured
from machine import describe

REMOVED = (4, 6)


def row(graph: ew.Graph, losses: dict[str, float], wanted: object, seed: int, removed: int) -> dict:
    space, best = (
        Space(graph, ew.Budget(units=len(graph.units) - removed)),
        best_of(losses, removed),
    )
    start, found = time.perf_counter(), searcher(wanted)
    steps = search(space, searching(found), seed=seed, limit=LIMIT)
    evaluations = asked(steps, losses)
    loss = min(e.loss for e in evaluations if e.mask.count("1") == removed)
    at_best = next(i for i, e in enumerate(evaluations, 1) if e.loss == loss)
    return {
        "surrogate": found.name.partition("#")[0], "seed": seed, "removed": removed,
        "loss": loss, "best": best, "close": loss <= CLOSE * best, "evaluations": len(evaluations),
        "found_after": at_best, "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """A line a surrogate: seeds that succeed by removed branches, seconds a search."""
    lines = ["surrogate             " + "".join(f"{k:>14}" for k in REMOVED) + "   after  seconds"]
    for name in dict.fromkeys(r["surrogate"] for r in rows):
        mine, cells = [r for r in rows if r["surrogate"] == name], []
        for removed in REMOVED:
            same = [r for r in mine if r["removed"] == removed]
            excess = np.mean([r["loss"] / r["best"] - 1 for r in same])
            cells.append(f"{sum(r['close'] for r in same)}/{len(same)} (+{excess:.1%})")
        after, seconds = (np.mean([r[key] for r in mine]) for key in ("found_after", "seconds"))
        line = f"{name:22}" + "".join(f"{cell:>14}" for cell in cells)
        lines.append(f"{line}{after:8.1f}{seconds:9.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--masks", type=Path, default=Path("benchmarks/results/resnet20_masks.npz"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/searching.json"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph, losses = measured(options.data, options.masks)
    rows = [
        row(graph, losses, wanted, seed, removed)
        for wanted in (*NAMES, RandomForestRegressor(20))
        for seed in range(options.seeds)
        for removed in REMOVED
    ]
    print(table(rows))
    options.out.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
