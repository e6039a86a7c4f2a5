"""How many evaluations a patient search saves on ResNet-20, and what it costs.

Each search of `exhaustive.py` (all 512 masks of 9 branches are known, at most 60 evaluations, 1 to
6 removed branches) with several values of `patience`. The regret is that of the best mask that was
measured, against the best one there is. The noise is the median standard error of the paired
difference between the best mask and the nine next to it on the 500 images, one number for each
number of removed branches; with --data it is measured anew, otherwise read from the results.

    python benchmarks/stopping.py [--data ../shared/data]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import edgewise as ew
from edgewise.search import Space, search
from edgewise.search.stopping import FRACTION, NEAR, Patience, paired_error
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import searcher
from exhaustive import LIMIT, REMOVED, asked, best_of, study_of
from machine import describe
from surrogates import ResNet, branches

ROUNDS = (1, 2, 3, None)


def table_of(path: Path) -> dict[str, float]:
    """The loss of each mask by its bits."""
    table = np.load(path)
    keys = ("".join(map(str, row)) for row in table["masks"])
    return dict(zip(keys, table["loss"].tolist(), strict=True))


def noise_of(folder: Path, losses: dict[str, float]) -> dict[int, float]:
    """The noise among the best masks of each number of removed branches."""
    found = {}
    with study_of(folder) as study:
        for removed in REMOVED:
            same = [bits for bits in losses if bits.count("1") == removed]
            best = sorted(same, key=losses.__getitem__)[:NEAR]
            masks = [study.graph.mask(bits=list(map(int, bits))) for bits in best]
            study.evaluate(masks)
            found[removed] = paired_error([study.losses(mask) for mask in masks])
    return found


def rows(losses: dict[str, float], noise: dict[int, float], seeds: int) -> Iterator[dict]:
    graph = branches(ResNet(3))
    for seed in range(seeds):
        for removed in REMOVED:
            space = Space(graph, ew.Budget(units=len(graph.units) - removed))
            for rounds in ROUNDS:
                patience = rounds and Patience(rounds, lambda _, removed=removed: noise[removed])
                fit = searching(searcher("auto"))
                steps = search(space, fit, seed=seed, limit=LIMIT, patience=patience)
                found = asked(steps, losses)
                least = min(e.loss for e in found if e.mask.count("1") == removed)
                regret = least / best_of(losses, removed) - 1
                yield {
                    "patience": rounds, "seed": seed, "removed": removed,
                    "evaluations": len(found), "regret": regret,
                }  # fmt: skip


def table(found: list[dict]) -> str:
    """Mean evaluations by patience and number of removed branches, and the largest regret."""
    lines = ["patience   " + "".join(f"{k:>8}" for k in REMOVED) + "   largest regret"]
    for rounds in ROUNDS:
        same = [r for r in found if r["patience"] == rounds]
        cells = [np.mean([r["evaluations"] for r in same if r["removed"] == k]) for k in REMOVED]
        worst = max(r["regret"] for r in same)
        lines.append(f"{rounds!s:11}" + "".join(f"{c:8.1f}" for c in cells) + f"   {worst:.1%}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--masks", type=Path, default=Path("benchmarks/results/resnet20_masks.npz"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stopping.json"))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    losses = table_of(options.masks)
    if options.data:
        noise = noise_of(options.data, losses)
    else:
        noise = {int(k): v for k, v in json.loads(options.out.read_text())["noise"].items()}
    found = list(rows(losses, noise, options.seeds))
    print(table(found))
    data = {"machine": describe(), "fraction": FRACTION, "noise": noise, "rows": found}
    options.out.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
