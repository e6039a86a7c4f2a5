"""Measure the tables of pruning masks: losses of single examples for thousands of masks.

A table is `results/masks/NAME.npz` with

    masks   uint8 [masks, units], 1 where a unit is removed; row 0 removes nothing
    losses  float16 [masks, examples], the cross-entropy of each search example
    macs    float64 [units], what the removal of each alone saves of the MACs, as a share
    names   the units

- resnet20: all 512 masks of its 9 residual branches, 500 images of CIFAR-10 (JPEG copy), the
  statistics of batch norms re-estimated for each.
- resnet56: its 27 branches, near 8 and 13 removed; 200 images, statistics from 128 others, in
  bfloat16.
- resnet56-halves: the halves of its 27 hidden widths that Taylor's importance calls the lesser,
  near 16 and 22 removed, on the same images.
- vit: 24 branches of 12 layers on digits (trained by `recovery.py`), near 6, 9 and 12 removed.
- smollm2: 60 sub-blocks of SmolLM2-135M, near 8, 16 and 22 removed, on eight sequences of 128
  tokens of WikiText-2, in bfloat16; the first masks are those that searches on the same text have
  left in the database of `language/problem.py`.

Where not all are measured there are single removals, masks drawn uniformly, the cheapest sums of
single damages under noise, and mutations of the best ones so far, a third each. What searches on
the emulator think best is measured then, in --rounds, and the emulator is made anew, so that there
is less and less that they mistake for good.

    python benchmarks/masks/measure.py resnet56 smollm2 --rounds 3 --data ../shared/data

A table that is there is continued up to --masks masks.
"""

import argparse
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch

import edgewise as ew

sys.path.insert(0, str(Path(__file__).parents[1]))
from networks import Bits, measured
from ours import edgewise
from tables import REMOVED, RESULTS, Emulator

from rivals import RIVALS, Meter, Spent

ROUND, PARENTS, BEST = 64, 0.05, 16


def drawn(
    known: dict[Bits, float], units: int, counts: tuple[int, ...], rng: np.random.Generator
) -> list[Bits]:
    """The next round: uniform, noisy sums of damages, mutations of the best."""
    alone = np.array([known[tuple(row)] for row in np.eye(units, dtype=int)])
    alone = np.maximum(alone - known[(0,) * units], 1e-3)
    found: dict[Bits, None] = {}
    while len(found) < ROUND:
        count, kind = int(rng.choice(counts)), len(found) % 3
        bits = np.zeros(units, int)
        if kind == 0:
            bits[rng.choice(units, count, replace=False)] = 1
        elif kind == 1:
            noise = np.exp(rng.choice([0.25, 0.5, 1.0]) * rng.normal(size=units))
            bits[np.argsort(alone * noise)[:count]] = 1
        else:
            same = sorted((m for m in known if sum(m) == count), key=known.__getitem__)
            if not same:  # in the first round
                same = [tuple(rng.permutation(np.arange(units) < count).astype(int).tolist())]
            bits[:] = same[rng.integers(max(round(PARENTS * len(same)), 1))]
            swaps = int(rng.integers(1, 4))
            bits[rng.choice(np.flatnonzero(bits), swaps, replace=False)] = 0
            free = np.flatnonzero(bits == 0)
            bits[rng.choice(free, count - bits.sum(), replace=False)] = 1
        if (mask := tuple(bits.tolist())) not in known:
            found[mask] = None
    return list(found)


def thought_best(name: str, graph: ew.Graph, seed: int) -> dict[Bits, float]:
    """Of masks that are emulated, the best that three searches find, and their mean losses."""
    emulator, units, found = Emulator(name), len(graph.units), dict[Bits, float]()
    searches = [RIVALS["evolution"], RIVALS["Optuna TPE"], partial(edgewise, parts=True)]
    for removed in REMOVED[name]:
        for search in searches:
            meter = Meter(emulator.losses, units, removed, 200)
            with suppress(Spent):
                search(meter, graph, np.random.default_rng(seed))
            new = [m for m in meter.seen if sum(m) == removed and m not in emulator.measured]
            new.sort(key=lambda mask: emulator.losses(mask).mean())
            found |= {mask: float(emulator.losses(mask).mean()) for mask in new[:BEST]}
    return found


def make(name: str, options: argparse.Namespace) -> None:
    path = RESULTS / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    losses: dict[Bits, np.ndarray] = {}
    if path.exists():
        table = np.load(path)
        losses = {
            tuple(m): x for m, x in zip(table["masks"].tolist(), table["losses"], strict=True)
        }
    graph, start, measure = measured(name, options)
    whole = ew.cost(graph).macs
    saved = [1 - ew.cost(graph, graph.mask([u])).macs / whole for u in range(len(graph.units))]
    units = len(graph.units)

    def add(masks: list[Bits]) -> None:
        for bits, each in zip(masks, measure(masks), strict=True):
            losses[bits] = each.astype(np.float16)
        np.savez_compressed(
            path,
            masks=np.array(list(losses), np.uint8),
            losses=np.array(list(losses.values())),
            macs=np.array(saved),
            names=np.array([unit.name for unit in graph.units]),
        )
        print(name, len(losses), "masks", flush=True)

    while len(losses) < min(options.masks, 2**units):
        if missing := [m for m in start if m not in losses]:
            add(missing[: options.masks - len(losses)])
        else:
            means = {m: float(x.mean(dtype=np.float64)) for m, x in losses.items()}
            add(drawn(means, units, REMOVED[name], np.random.default_rng(len(losses))))
    for turn in range(options.rounds):
        thought = thought_best(name, graph, 1000 + turn)
        add(list(thought))
        found = [losses[mask].astype(float).mean() for mask in thought]
        wrong = np.log(list(thought.values())) - np.log(found)
        print(f"round {turn}: emulated above measured, in logarithms: {wrong.mean():.3f} in the "
              f"mean, {wrong.min():.3f} at worst", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=REMOVED)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("vit-digits.safetensors"))
    parser.add_argument("--masks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names:
        make(name, options)


if __name__ == "__main__":
    main()
