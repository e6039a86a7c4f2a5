"""ResNet-56 on CIFAR-10 (JPEG copy) at 20, 30, 40 and 60 % fewer MACs, without training.

Whole branches, hidden channels, and both chosen jointly by edgewise, against one global Taylor
ranking of the hidden channels. Everybody gets the same batch-norm recovery from 500 training
images. Seeds share the 1 000 search images, and have calibration images and random numbers of
their own; the report split (7 000 images) is used once for each final network.

    python benchmarks/widths.py --data ../shared/data --seed 0 --methods taylor joint
    python benchmarks/widths.py --merge

Finished evaluations are kept in --storage; run the same command again to resume.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.config import DataSection
from edgewise.datasets import load_batches
from edgewise.search import Space
from edgewise.search.strategy import ranked_pick
from edgewise.sources import load_loss, load_metrics
from edgewise.tables import Rows
from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import resnet56

MACS = (0.6, 0.7, 0.4, 0.8)
EVALUATIONS, FINALISTS = 40, 5  # at each budget, after the first ones of single branches
KINDS = {"branches": ("edge",), "hidden": ("hidden",), "joint": ("edge", "hidden")}
RESULTS = Path(__file__).parent / "results"


def data(folder: Path, name: str, start: int, stop: int, batch: int) -> list:
    section = DataSection(
        source=str(folder / f"cifar10-{name}.parquet"),
        batch=batch,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    last = {"memory_format": torch.channels_last}
    batches = load_batches(section, Rows(start, stop))
    return [(images.contiguous(**last), targets) for images, targets in batches]


def calibration(folder: Path, seed: int) -> list:
    return data(folder, "train", 2000 * seed, 2000 * seed + 500, 500)


def objective(folder: Path, seed: int) -> ew.Objective:
    return ew.Objective(
        data(folder, "test", 0, 1000, 100),
        loss=load_loss("cross_entropy"),
        metrics=load_metrics(["accuracy"]),
        recovery=ew.Recovery("batchnorm", calibration(folder, seed)),
        verify=data(folder, "test", 1000, 3000, 100),
        report=data(folder, "test", 3000, 10000, 100),
    )


def network(folder: Path) -> nn.Module:
    model = resnet56()
    model.load_state_dict(load_file(folder / "resnet56_cifar10.safetensors"))
    return model.eval().to(memory_format=torch.channels_last)


def traced(folder: Path, seed: int, kinds: tuple[str, ...]) -> ew.Graph:
    """The network with these units; channels are ordered by Taylor on 1 500 training images."""
    pairs = data(folder, "train", 2000 * seed, 2000 * seed + 1500, 100)
    graph = ew.trace(
        network(folder),
        (torch.randn(1, 3, 32, 32),),
        granularity=kinds,
        importance=ew.importance.taylor(pairs, F.cross_entropy),
    )
    return graph.select(lambda unit: unit.kind != "edge" or "conv1.." in unit.name)


def ours(study: ew.Study, seed: int) -> list:
    """All budgets from one study; a later one starts from all that is known."""
    rows, spent = [], 0
    for macs in MACS:
        begin = time.time()
        budget = ew.Budget(macs=macs)
        single = [u for u in study.graph.units if not u.group]
        first = 1 + len(single) if macs == MACS[0] else 0
        study.run(evaluations=first + EVALUATIONS, budget=budget, seed=seed)
        plan = study.plan(budget, finalists=FINALISTS)
        mask = study.graph.mask(bits=plan.bits)
        known = [e for e in study.evaluations if e.split != "report"]
        rows.append(row(study, macs, mask, len(known) - spent, time.time() - begin))
        spent = len(known)
        print(study.name, rows[-1], flush=True)
        save("-".join(study.name.split("-")[1:-1]), seed, rows)
    return rows


def save(method: str, seed: int, rows: list) -> None:
    """Write what one method gave so far on one seed."""
    named = [{"method": method, "seed": seed, **r} for r in rows]
    part = RESULTS / f"widths-part-{method}-{seed}.json"
    part.write_text(json.dumps({"machine": describe(), "rows": named}, indent=1) + "\n")


def row(study: ew.Study, macs: float, mask: ew.Mask, evaluations: int, seconds: float) -> dict:
    search, report = study.evaluate([mask])[0], study.evaluate([mask], "report")[0]
    cost = ew.cost(study.graph, mask)
    return {
        "macs": macs,
        "reached_macs": cost.macs / ew.cost(study.graph).macs,
        "params": cost.params,
        "evaluations": evaluations,
        "seconds": round(seconds, 1),
        "search_loss": search.loss,
        "report_loss": report.loss,
        "report_accuracy": report.metrics["accuracy"],
        "removed": [study.graph.units[u].name for u in mask.removed],
    }


def ranking(study: ew.Study) -> list:
    """Hidden channels by one global Taylor ranking, per MAC saved; nothing is searched."""
    rows = []
    for macs in MACS:
        mask = ranked_pick(Space(study.graph, ew.Budget(macs=macs)))
        assert mask is not None
        rows.append(row(study, macs, mask, 0, 0.0))
        print(study.name, rows[-1], flush=True)
    return rows


def run(options: argparse.Namespace, method: str) -> list:
    seed, folder = options.seed, options.data
    splits = objective(folder, seed)
    graph = traced(folder, seed, KINDS.get(method, ("hidden",)))
    name = f"widths-{method}-{seed}"
    study = ew.Study(graph, splits, f"sqlite:///{options.storage}-{method}-{seed}.db", name)
    if method == "unpruned":
        return [row(study, 1.0, graph.empty, 0, 0.0)]
    return ranking(study) if method == "taylor-hidden" else ours(study, seed)


def merge() -> None:
    """All partial results as one file and a table of mean accuracies."""
    parts = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("widths-part-*.json"))]
    rows = [row for part in parts for row in part["rows"]]
    (RESULTS / "widths.json").write_text(
        json.dumps({"machine": parts[0]["machine"], "rows": rows}, indent=1) + "\n"
    )
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for macs in dict.fromkeys(r["macs"] for r in rows if r["method"] == method):
            hits = [
                100 * r["report_accuracy"]
                for r in rows
                if r["method"] == method and r["macs"] == macs
            ]
            cells.append(f"{macs:g}: {np.mean(hits):.1f} ({min(hits):.1f}-{max(hits):.1f})")
        print(f"{method:14}", "  ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--storage", default="widths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=["taylor-hidden", "joint"])
    parser.add_argument("--merge", action="store_true")
    options = parser.parse_args()
    if options.merge:
        merge()
        return
    torch.set_num_threads(1)
    for method in options.methods:
        save(method, options.seed, run(options, method))


if __name__ == "__main__":
    main()
