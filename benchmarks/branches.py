"""ResNet-56 on CIFAR-10 (JPEG copy), 8 of 27 residual branches removed without training.

Compares the leave-one-out pick, greedy removal (every candidate measured again after each
removal), random masks and edgewise, with and without batch-norm recovery, on the same 500 search
images, each seed with its own. The report split (7 000 images) is used once for each final mask.

    python benchmarks/branches.py --data ../shared/data --out benchmarks/results/branches.json

Finished evaluations are kept in --storage; run the same command again to resume.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import edgewise as ew
from edgewise.config import DataSection
from edgewise.datasets import load_batches
from edgewise.sources import load_loss, load_metrics
from edgewise.study import Study
from edgewise.tables import Rows
from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import resnet56

REMOVED, SEARCH, FINALISTS = 8, 106, 12


def data(folder: Path, name: str, start: int, stop: int) -> list:
    section = DataSection(
        source=str(folder / f"cifar10-{name}.parquet"),
        batch=500,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    return load_batches(section, Rows(start, stop))


def make_objective(folder: Path, kind: str, seed: int) -> ew.Objective:
    start = 250 * (seed % 3)
    calibration = data(folder, "train", 500 * seed, 500 * seed + 500)
    return ew.Objective(
        data(folder, "test", start, start + 500),
        loss=load_loss("cross_entropy"),
        metrics=load_metrics(["accuracy"]),
        recovery=ew.Recovery(kind, calibration if kind == "batchnorm" else None),
        verify=data(folder, "test", 1000, 3000),
        report=data(folder, "test", 3000, 10000),
    )


def single_pick(study: Study) -> tuple[ew.Mask, list]:
    graph = study.graph
    alone = study.evaluate([graph.empty, *(graph.mask([u]) for u in range(len(graph.units)))])
    order = np.argsort([e.loss for e in alone[1:]], kind="stable")[:REMOVED]
    return graph.mask(int(u) for u in order), alone


def greedy(study: Study) -> tuple[ew.Mask, list]:
    mask, used = study.graph.empty, []
    while len(mask.removed) < REMOVED:
        more = [mask.with_removed(u) for u, bit in enumerate(mask.bits) if not bit]
        found = study.evaluate(more)
        used += found
        mask = more[int(np.argmin([e.loss for e in found]))]
    return mask, used


def edgewise(study: Study, seed: int) -> tuple[ew.Mask, list]:
    budget = ew.Budget(units=len(study.graph.units) - REMOVED)
    study.run(evaluations=SEARCH, budget=budget, seed=seed)
    plan = study.plan(finalists=FINALISTS)
    used = [e for e in study.evaluations if e.split in ("search", "verify")]
    return study.graph.mask(bits=plan.bits), used


def row(study: Study, name: str, mask: ew.Mask, used: list) -> dict:
    search = study.evaluate([mask])[0]
    fresh = study.evaluate([mask], "report")[0]
    return {
        "method": name,
        "evaluations": len(used),
        "evaluation_seconds": round(sum(e.seconds for e in used), 1),
        "images": sum(e.samples for e in used),
        "search_loss": search.loss,
        "report_loss": fresh.loss,
        "report_accuracy": fresh.metrics["accuracy"],
        "removed": [study.graph.units[u].name for u in mask.removed],
    }


def compare(graph: ew.Graph, objective: ew.Objective, storage: str, name: str, seed: int) -> list:
    """edgewise in a study of its own, so that it finds nothing measured already by the others."""
    ours, study = (Study(graph, objective, storage, n) for n in (f"{name}-edgewise", name))
    rows = [row(ours, "edgewise", *edgewise(ours, seed))]
    rows.append(row(study, "leave-one-out", *single_pick(study)))
    rows.append(row(study, "greedy", *greedy(study)))
    rows.append(row(study, "unpruned", study.graph.empty, []))
    rng = np.random.default_rng(seed)
    for mask in ew.sample_masks(study.graph, 3, removed=REMOVED, rng=rng):
        rows.append(row(study, "random", mask, []))
    for entry in rows:
        print(study.name, {k: v for k, v in entry.items() if k != "removed"}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/branches.json"))
    parser.add_argument("--storage", default="sqlite:///branches.db")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    model = resnet56()
    model.load_state_dict(load_file(options.data / "resnet56_cifar10.safetensors"))
    whole = ew.trace(model, (torch.randn(1, 3, 32, 32),), granularity="edge")
    graph = whole.select(lambda unit: "conv1.." in unit.name)
    results = []
    for kind in ("none", "batchnorm"):
        for seed in options.seeds:
            objective = make_objective(options.data, kind, seed)
            name = f"resnet56-{kind}-{seed}"
            for entry in compare(graph, objective, options.storage, name, seed):
                results.append({"recovery": kind, "seed": seed, **entry})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": describe(), "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
