"""Regret curves on the tables of pruning masks, at equal examples, over seeds.

    python benchmarks/masks/regret.py resnet56 vit smollm2 --seeds 5
    python benchmarks/masks/regret.py table

Regret is the loss of the best mask at the budget that was measured on all examples, over the best
loss known, minus one. ResNet-20's table is exhaustive; masks of the others are emulated where they
were not measured, and the best known is the best that any method found. "edgewise" measures
masks whole, as it does by itself for networks as small as the transformer here, and "edgewise,
parts" lets most masks see a part of the examples, as it does for the others; "edgewise, shuffled"
is a control, the first of them with units that are told to be where others are. Rows that are in
the JSON are kept: run the same command again to resume.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from scipy.stats import bootstrap

sys.path.insert(0, str(Path(__file__).parents[1]))
from networks import graph_of
from ours import edgewise
from tables import REMOVED, RESULTS, Emulator

import edgewise as ew
from machine import describe
from rivals import RIVALS, Meter, Spent

LIMITS = dict.fromkeys(REMOVED, (50, 100, 200)) | {"resnet20": (20, 40)}
SLOW = ("Optuna GP", "SMAC", "BoTorch")  # minutes a run: three seeds, one budget, fewer masks
ANYTIME = ("random", "evolution", "Optuna TPE", *SLOW)  # know no limit: one run has all of them
METHODS = {
    **RIVALS, "edgewise": edgewise, "edgewise, parts": partial(edgewise, parts=True),
    "edgewise, shuffled": partial(edgewise, shuffled=True),
}  # fmt: skip


def run(emulator: Emulator, graph: ew.Graph, key: dict) -> dict:
    """One run: what it spent and what it had found by then."""
    meter = Meter(emulator.losses, len(graph.units), key["removed"], key["limit"])
    begin = time.process_time()
    with suppress(Spent):
        METHODS[key["method"]](meter, graph, np.random.default_rng(key["seed"]))
    seconds = round(time.process_time() - begin, 1)
    return {**key, "spent": meter.spent / meter.examples, "curve": meter.curve, "seconds": seconds}


def keys(name: str, methods: list[str], seeds: int) -> Iterator[dict]:
    """What is to be run on a table."""
    for removed, method in product(REMOVED[name], methods):
        limits = LIMITS[name][-1:] if method in ANYTIME else LIMITS[name]
        if method in SLOW:
            limits = [] if removed != REMOVED[name][1] else LIMITS[name][:2][-1:]
        for limit, seed in product(limits, range(min(seeds, 3) if method in SLOW else seeds)):
            yield {
                "table": name, "method": method, "removed": removed, "limit": limit, "seed": seed
            }  # fmt: skip


def at(curve: list[list[float]], limit: float) -> float:
    """The best loss after so many full evaluations."""
    return min((loss for spent, loss in curve if spent <= limit), default=float("inf"))


def table(rows: list[dict]) -> str:
    """Mean regret in percent with a 95 % bootstrap interval, by table, budget and limit."""
    lines = []
    for name in dict.fromkeys(r["table"] for r in rows):
        for removed in REMOVED[name]:
            same = [r for r in rows if (r["table"], r["removed"]) == (name, removed)]
            best = min(r["best"] for r in same)
            best = min(best, *(at(r["curve"], 1e9) for r in same))
            lines.append(f"\n{name}, {removed} removed: best known {best:.4f}")
            lines.append(f"{'full evaluations':16}" + "".join(f"{n:>22}" for n in LIMITS[name]))
            for method in dict.fromkeys(r["method"] for r in same):
                cells = []
                for n in LIMITS[name]:
                    mine = [r for r in same if r["method"] == method]
                    limit = max(r["limit"] for r in mine) if method in ANYTIME else n
                    mine = [r for r in mine if r["limit"] == limit and n <= limit]
                    cells.append(regret([at(r["curve"], n) / best - 1 for r in mine]))
                lines.append(f"{method:16}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def regret(values: list[float]) -> str:
    if not values or not np.isfinite(values).all():
        return "–"
    if len(values) < 3 or max(values) == min(values):
        return f"{mean(values):.1%} ({len(values)})"
    low, high = bootstrap((values,), np.mean, rng=0).confidence_interval
    return f"{mean(values):.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=(*REMOVED, "table"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS.with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for name in options.names if options.names != ["table"] else ():
        emulator, graph = Emulator(name), graph_of(name)
        for key in keys(name, options.methods, options.seeds):
            if any(key.items() <= known.items() for known in rows):
                continue
            measured = [x for mask, x in emulator.measured.items() if sum(mask) == key["removed"]]
            best = min(float(x.mean()) for x in measured)
            rows.append({**run(emulator, graph, key), "best": best})
            print(*key.values(), rows[-1]["seconds"], rows[-1]["curve"][-1:], flush=True)
            text = json.dumps({"machine": describe(), "rows": rows})
            options.out.write_text(text.replace('{"table"', '\n{"table"') + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
