"""ResNet-20: every subset of its 9 residual branches measured once, so that the best is known.

512 masks, 500 test images (CIFAR-10, JPEG copy), batch-norm statistics re-estimated from 500
training images, shifted and mirrored as in training. Each method then looks for the best mask of 1
to 6 removed branches with at most 60 evaluations that the table answers; a method succeeds if its
best measured mask is within 2 % of the loss of the best one there is. "one study" gives edgewise 60
evaluations for all six budgets together, ten for each, from the largest network on.

    python benchmarks/exhaustive.py --data ../shared/data
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import edgewise as ew
from branches import data
from edgewise.cli.job.sources import load_loss, load_metrics
from edgewise.evaluation.records import Evaluation
from edgewise.search import Questions, Space, answered, search
from edgewise.study.bench import baselines
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import searcher
from machine import describe
from surrogates import ResNet, branches
from widths import cropped

LIMIT, CLOSE = 60, 1.02
REMOVED = range(1, 7)


def study_of(folder: Path) -> ew.Study:
    model = ResNet(3)
    model.load_state_dict(load_file(folder / "resnet20_cifar10.safetensors"))
    images = torch.cat([x for x, _ in data(folder, "train", 0, 500)])
    objective = ew.Objective(
        data(folder, "test", 0, 500),
        loss=load_loss("cross_entropy"),
        metrics=load_metrics(["accuracy"]),
        recovery=ew.Recovery("batchnorm", [cropped(images, 0)]),
    )
    return ew.Study(branches(model), objective)


def measured(folder: Path, path: Path) -> tuple[ew.Graph, dict[str, float]]:
    """The graph, and the loss of each of the 512 masks by its bits."""
    with study_of(folder) as study:
        units = len(study.graph.units)
        masks = [study.graph.mask(bits=[n >> u & 1 for u in range(units)]) for n in range(2**units)]
        if not path.exists():
            found = study.evaluate(masks)
            np.savez_compressed(
                path,
                masks=np.array([m.bits for m in masks], np.uint8),
                loss=np.array([e.loss for e in found]),
                accuracy=np.array([e.metrics["accuracy"] for e in found]),
            )
        table = np.load(path)
        keys = ("".join(map(str, row)) for row in table["masks"])
        return study.graph, dict(zip(keys, table["loss"].tolist(), strict=True))


def asked(steps: Questions, losses: dict[str, float]) -> list[Evaluation]:
    """All evaluations that a method asks for."""
    return answered(
        steps,
        lambda ask: [Evaluation(str(m), "search", losses[str(m)], samples=500) for m in ask.masks],
    )


def methods(graph: ew.Graph, seed: int) -> dict[str, Callable[[Space], Questions]]:
    def joint(space: Space) -> Questions:
        return search(space, searching(searcher("auto")), seed=seed, limit=LIMIT)

    return {
        "edgewise": joint,
        "greedy": lambda space: baselines.greedy(space, LIMIT),
        "leave-one-out": baselines.leave_one_out,
        "evolution": lambda s: baselines.evolution(s, LIMIT, np.random.default_rng(seed)),
        "random": lambda s: baselines.at_random(s, LIMIT, np.random.default_rng(seed)),
    }


def best_of(losses: dict[str, float], removed: int) -> float:
    return min(loss for bits, loss in losses.items() if bits.count("1") == removed)


def rows(graph: ew.Graph, losses: dict[str, float], seeds: int) -> Iterator[dict]:
    for seed in range(seeds):
        before: list[Evaluation] = []
        for removed in REMOVED:
            space = Space(graph, ew.Budget(units=len(graph.units) - removed))
            best = best_of(losses, removed)
            for name, make in methods(graph, seed).items():
                yield row(name, seed, removed, asked(make(space), losses), best)
            fit = searching(searcher("auto"))
            limit = LIMIT * removed // len(REMOVED) - len(before)
            steps = search(space, fit, seed=seed, limit=limit, before=tuple(before))
            before += asked(steps, losses)
            yield row("edgewise, one study", seed, removed, before, best)


def row(name: str, seed: int, removed: int, found: list[Evaluation], best: float) -> dict:
    within = [e.loss for e in found if e.mask.count("1") == removed and e.loss is not None]
    return {
        "method": name, "seed": seed, "removed": removed, "evaluations": len(found),
        "loss": min(within), "best": best, "close": min(within) <= CLOSE * best,
    }  # fmt: skip


def table(found: list[dict]) -> str:
    """Seeds that succeed, by method and number of removed branches; mean excess in brackets."""
    lines = ["removed             " + "".join(f"{k:>14}" for k in REMOVED)]
    for name in dict.fromkeys(r["method"] for r in found):
        cells = []
        for removed in REMOVED:
            same = [r for r in found if (r["method"], r["removed"]) == (name, removed)]
            excess = np.mean([r["loss"] / r["best"] - 1 for r in same])
            cells.append(f"{sum(r['close'] for r in same)}/{len(same)} (+{excess:.1%})")
        lines.append(f"{name:20}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--masks", type=Path, default=Path("benchmarks/results/resnet20_masks.npz"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exhaustive.json"))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph, losses = measured(options.data, options.masks)
    found = list(rows(graph, losses, options.seeds))
    print(table(found))
    options.out.write_text(json.dumps({"machine": describe(), "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
