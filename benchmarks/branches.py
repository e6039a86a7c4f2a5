"""ResNet-56 on CIFAR-10 (JPEG copy), 8 and 13 of 27 residual branches removed without training.

edgewise and evolution with 120 and 250 evaluations, greedy removal with as many as it needs (every
branch left is measured again after each removal), leave-one-out and random masks, all through
`edgewise.study.bench`: the same 500 search images and 500 calibration images (shifted and
mirrored as in training) for everybody, other ones for each seed; finalists meet on 2 000 verify
images. The report split (7 000 images) is used once for each final mask.

    python benchmarks/branches.py --data ../shared/data --seeds 0 1 2 3 4
    python benchmarks/branches.py table

Finished evaluations are kept in --storage; run the same command again to resume. Rows of other
seeds, and of methods that are not among --methods, stay in --out.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from safetensors.torch import load_file
from scipy.stats import t as student

import edgewise as ew
from edgewise.cli.job.datasets import load_batches
from edgewise.cli.job.sections import DataSection
from edgewise.cli.job.sources import load_loss, load_metrics
from edgewise.cli.job.toml_sections import Rows
from edgewise.study.bench import bench
from machine import describe
from widths import cropped

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import resnet56

REMOVED, FINALISTS, GREEDY = (8, 13), 8, 400
LIMITS = (120, 250)
METHODS = ("unpruned", "edgewise", "evolution", "greedy", "leave-one-out", "random")


def data(folder: Path, name: str, start: int, stop: int) -> list:
    section = DataSection(
        source=str(folder / f"cifar10-{name}.parquet"),
        batch=500,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    return load_batches(section, Rows(start, stop))


def make_objective(folder: Path, kind: str, seed: int) -> ew.Objective:
    images = torch.cat([x for x, _ in data(folder, "train", 500 * seed, 500 * seed + 500)])
    start = 125 * (seed % 5)
    return ew.Objective(
        data(folder, "test", start, start + 500),
        loss=load_loss("cross_entropy"),
        metrics=load_metrics(["accuracy"]),
        recovery=ew.Recovery(kind, [cropped(images, seed)] if kind != "none" else None),
        verify=data(folder, "test", 1000, 3000),
        report=data(folder, "test", 3000, 10000),
    )


def rows(study: ew.Study, seed: int, wanted: Sequence[str]) -> Iterator[dict]:
    """What some methods find at both budgets, in one study; a mask is measured once."""
    if "unpruned" in wanted:
        fresh = study.evaluate([study.graph.empty], "report")[0]
        yield {"removed_branches": 0, "method": "unpruned", "limit": None, "loss": fresh.loss,
               "metrics": dict(fresh.metrics), "evaluations": 0}  # fmt: skip
    for removed in REMOVED:
        budget = ew.Budget(units=len(study.graph.units) - removed)
        runs = [(limit, ("edgewise", "evolution")) for limit in LIMITS]
        runs.append((GREEDY, ("greedy", "leave-one-out")))
        runs.append((1, ("random",)))
        for limit, names in runs:
            methods = [name for name in names if name in wanted]
            found = methods and bench(
                study, budget, methods, evaluations=limit, seeds=[seed], finalists=FINALISTS
            )
            for row in found:
                only = limit if limit in LIMITS else None
                yield {"removed_branches": removed, "limit": only, **row.to_dict()}


def table(path: Path) -> None:
    """Means over seeds with 95 % intervals of the mean (Student), and paired differences."""
    found = json.loads(path.read_text())["rows"]
    for removed in (0, *REMOVED):
        some = [r for r in found if r["removed_branches"] == removed]
        for method, limit in dict.fromkeys((r["method"], r["limit"]) for r in some):
            mine = [r for r in some if (r["method"], r["limit"]) == (method, limit)]
            values = [row["loss"] for row in mine]
            count = mean(r["evaluations"] for r in mine)
            hits = mean(100 * row["metrics"]["accuracy"] for row in mine)
            print(f"{removed:2} {method:14} {count:4.0f} {interval(values)} {hits:.1f} %")
        for limit in LIMITS:
            ours = losses_of(some, "edgewise", limit)
            for name, other in (("greedy", None), ("evolution", limit)):
                theirs = losses_of(some, name, other)
                apart = [ours[s] - theirs[s] for s in ours if s in theirs]
                if apart:
                    print(f"{removed:2} edgewise {limit} minus {name}: {interval(apart)}")


def losses_of(found: list[dict], method: str, limit: int | None) -> dict[int, float]:
    """Report losses by seed."""
    mine = [row for row in found if row["method"] == method and row["limit"] == limit]
    return {row["seed"]: row["loss"] for row in mine}


def interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.3f} ± {half:.3f} ({len(values)} seeds)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("measure", "table"), default="measure")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/branches.json"))
    parser.add_argument("--storage", default="sqlite:///branches.db")
    parser.add_argument("--recovery", choices=("none", "batchnorm", "linear"), default="batchnorm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    if options.what == "table":
        table(options.out)
        return
    torch.set_num_threads(1)
    model = resnet56()
    model.load_state_dict(load_file(options.data / "resnet56_cifar10.safetensors"))
    whole = ew.trace(model, (torch.randn(1, 3, 32, 32),), granularity="edge")
    graph = whole.select(["* branch"])
    known = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for seed in options.seeds:
        objective = make_objective(options.data, options.recovery, seed)
        name = f"resnet56-{options.recovery}-{seed}"
        this = {"recovery": options.recovery, "seed": seed}
        known = [
            row for row in known
            if not this.items() <= row.items() or row["method"] not in options.methods
        ]  # fmt: skip
        study = ew.Study(graph, objective, options.storage, name)
        for found in rows(study, seed, options.methods):
            known.append({**found, **this})
            brief = ("seed", "removed_branches", "method", "evaluations", "seconds", "loss")
            print({key: known[-1].get(key) for key in brief}, flush=True)
            record = {"machine": describe(), "rows": known}
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
