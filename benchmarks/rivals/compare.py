"""edgewise beside what people would use instead: ResNet-20 and ResNet-56 on CIFAR-10 (JPEG copy).

20, 40 and 60 % of the MACs removed; loss and accuracy with 95 % intervals on 7 000 test images that
nobody has seen: as pruned ("raw"), with the statistics of all batch norms from the same 500
training images ("recovered"), and after the same fine-tuning for everybody ("healed": 100 steps of
100 images, distilled from the unpruned network). The joint search also appears with linear
recovery from the same images instead, before and after fine-tuning. With --calibrated searches look
at outputs after temperature scaling, in rows of their own.

    python benchmarks/rivals/compare.py resnet20 --seeds 0 1 2
    python benchmarks/rivals/compare.py resnet56 --seeds 0 --methods edgewise-joint taylor
    python benchmarks/rivals/compare.py resnet56 --device cuda --keep networks
    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000    # for times, see below
    python benchmarks/rivals/compare.py resnet56 --latency --keep networks
    python benchmarks/rivals/compare.py resnet56 --merge other.json
    python benchmarks/rivals/page.py    # docs/rivals.md and its plots

Rows that are in --out already are not measured again; evaluations are kept in --storage. With
--keep the networks of the first seed are kept without their weights, and timed later, on any
machine; --merge takes rows from the results of another machine. Activations of 32 images are as
large as what glibc gives back to the system after every operator, and takes again: whether it does
depends on what ran before, and costs up to half of the time, so it is told to keep its memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from branches import data
from edgewise.cli.job.healing import Training
from edgewise.evaluation.evaluator import Engine
from edgewise.latency.stopwatch import Stopwatch
from edgewise.study.statistics import bootstrap, exact
from machine import accelerator, describe
from rivals import channels
from rivals.contestants import MACS, METHODS, NETWORKS, Choice, Contest, choices

CALIBRATED = ", calibrated"  # what follows the name of a method whose search sees such outputs
HEALING = ew.Healing(epochs=1, lr=0.02)
IMAGES, BATCH, ROUNDS = 10_000, 100, 15
SETTINGS = [(threads, batch) for threads in (1, 2) for batch in (1, 32)]


class Judge:
    """Measures networks on the report split, and heals them, all alike."""

    def __init__(self, contest: Contest) -> None:
        self.contest, self.teacher = contest, contest.model()
        self.device = "cpu" if contest.device == "cpu" else accelerator(contest.device)
        self.report = contest.read("test", 3000, 10000)
        first = IMAGES * contest.seed
        pairs = data(contest.folder, "train", first, first + IMAGES)
        images, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
        self.training = Training(
            images, labels, BATCH, shift=4, mirror=True, seed=contest.seed
        )  # fmt: skip

    @torch.inference_mode()
    def measured(self, model: nn.Module) -> dict[str, Any]:
        """Loss and accuracy, with 95 % intervals (bootstrap; Clopper & Pearson)."""
        losses, hits = [], 0
        for images, labels in self.report:
            out = model(images)
            losses.append(F.cross_entropy(out, labels, reduction="none"))
            hits += int((out.argmax(1) == labels).sum())
        each = torch.cat(losses).cpu().double()
        finite = math.isfinite(float(each.mean()))
        return {
            "loss": float(each.mean()) if finite else None,
            "loss_interval": bootstrap(each.numpy()) if finite else None,
            "accuracy": hits / len(each),
            "accuracy_interval": exact(hits, len(each)),
        }

    def healed(self, model: nn.Module) -> dict[str, Any]:
        for module in model.modules():
            if isinstance(module, channels.Subsampled):  # is no layer of the network
                module.weight.requires_grad_(False)
        return self.measured(ew.heal(model, self.training, teacher=self.teacher, settings=HEALING))


def rows(
    contest: Contest, method: str, judge: Judge, folder: Path | None
) -> Iterator[dict[str, Any]]:
    """A row a budget; two of the joint search, one of them with linear recovery."""
    name = method + CALIBRATED * contest.calibrated
    for choice in choices(contest, method):
        if folder is not None:
            torch.save(bare(choice.model), kept(folder, contest, name, choice.macs))
        row = {
            "network": contest.network, "seed": contest.seed, "method": name,
            "device": judge.device, "macs": choice.macs,
            "reached_macs": choice.reached, "params": choice.params,
            "evaluations": choice.evaluations, "seconds": round(choice.seconds, 1),
            "raw": judge.measured(choice.model),
        }  # fmt: skip
        if choice.mask:
            graph, mask = choice.mask
            row["removed"] = [graph.units[u].name for u in mask.removed]
        small = copy.deepcopy(choice.model)
        channels.recover(small, contest.calibration)
        yield {**row, "recovered": judge.measured(small), "healed": judge.healed(small)}
        if method == "edgewise-joint":
            small = refitted(contest, choice)
            row["method"] += ", linear"
            yield {**row, "recovered": judge.measured(small), "healed": judge.healed(small)}


def bare(model: nn.Module) -> nn.Module:
    """A copy on the processor without weights, which take no room in a file."""
    model = copy.deepcopy(model).cpu()
    for weight in [*model.parameters(), *model.buffers()]:
        weight.data = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
    return model


def filled(model: nn.Module) -> nn.Module:
    """Such a network with random weights of the usual size."""
    for weight in [*model.parameters(), *model.buffers()]:
        weight.data = torch.ones_like(weight, memory_format=torch.contiguous_format)
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)
    return model.eval()


def kept(folder: Path, contest: Contest, method: str, macs: float) -> Path:
    """Where a network is kept."""
    return folder / f"{contest.network}-{method.replace(', ', '-')}-{macs:g}.pt"


def refitted(contest: Contest, choice: Choice) -> nn.Module:
    """The chosen network with linear recovery from the same images."""
    assert choice.mask is not None
    graph, mask = choice.mask
    objective = ew.Objective(
        contest.scoring[:1],
        F.cross_entropy,
        recovery=ew.Recovery("linear", [contest.calibration]),
    )
    (outcome,) = Engine(graph, objective).evaluate([mask], tensors=True)
    return ew.prune(graph, mask, tensors=outcome.tensors)


def latencies(contest: Contest, methods: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Medians of the time over the unpruned network's, all networks taking turns."""
    models: dict[tuple[str, float], nn.Module] = {}
    for method in (m + c for m in methods for c in ("", CALIBRATED)):
        for macs in MACS:
            path = kept(folder, contest, method, macs)
            if path.exists():
                models[method, macs] = filled(torch.load(path, "cpu", weights_only=False))
    for threads, batch in SETTINGS:
        watch = Stopwatch((torch.randn(batch, 3, 32, 32),), threads, ROUNDS)
        seconds = watch.networks([contest.model(), *models.values()])
        for place, (method, macs) in enumerate(models, 1):
            yield {
                "network": contest.network, "method": method, "macs": macs, "threads": threads,
                "batch": batch, "ratio": median(seconds[:, place] / seconds[:, 0]),
                "unpruned_ms": 1000 * median(seconds[:, 0]),
            }  # fmt: skip


def merged(results: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Results with the rows of others in place of what they had of the same."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["network"], row["seed"], row["method"], row["macs"]

    rows = {key(row): row for part in (results, others) for row in part["rows"]}
    machines = {**results.get("machines", {}), **others.get("machines", {})}
    ordered = sorted(rows.values(), key=lambda r: (r["network"], r["seed"], r["macs"] < 1))
    return {**results, "machines": machines, "rows": ordered}


def is_of(row: dict[str, Any], contest: Contest, method: str) -> bool:
    """Whether a row is a method's, linear recovery included."""
    wanted = (contest.network, contest.seed, method + CALIBRATED * contest.calibrated)
    return (row["network"], row["seed"], row["method"].removesuffix(", linear")) == wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rivals.json"))
    parser.add_argument("--storage", default="sqlite:///rivals.db")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--calibrated", action="store_true", help="searches use another loss")
    parser.add_argument("--device", default="cpu", help="where networks run")
    parser.add_argument("--keep", type=Path, help="a folder for the first seed's networks")
    parser.add_argument("--latency", action="store_true", help="time the networks that were kept")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="take these rows, too")
    options = parser.parse_args()
    if options.latency and options.keep is None:
        parser.error("--latency times the networks that an earlier run left in --keep FOLDER")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    for path in options.merge:
        results = merged(results, json.loads(path.read_text()))
    if options.merge:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        return
    contests = [
        Contest(options.network, s, options.data, options.storage, options.calibrated,
                options.device)
        for s in options.seeds
    ]  # fmt: skip
    if options.latency:
        found = list(latencies(contests[0], options.methods, options.keep))
        timed = {(r["network"], r["method"]) for r in found}
        others = [r for r in results.get("latency", [])
                  if (r["network"], r["method"]) not in timed]  # fmt: skip
        results |= {"latency": others + found, "latency_machine": describe()}
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        return
    for contest in contests:
        judge = Judge(contest)
        results.setdefault("machines", {})[judge.device] = describe(options.device)
        same = {"network": contest.network, "seed": contest.seed}
        if not any({**same, "method": "unpruned"}.items() <= r.items() for r in results["rows"]):
            whole = judge.measured(judge.teacher)
            results["rows"].append({**same, "method": "unpruned", "macs": 1.0, "raw": whole})
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
        for method in options.methods:
            done = {r["macs"] for r in results["rows"] if is_of(r, contest, method)}
            if done >= set(MACS):
                continue
            results["rows"] = [r for r in results["rows"] if not is_of(r, contest, method)]
            first = contest.seed == options.seeds[0]
            for row in rows(contest, method, judge, options.keep if first else None):
                results["rows"].append(row)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
                print(row["seed"], row["method"], row["macs"], row["evaluations"],
                      *(f"{row[k]['accuracy']:.4f}" for k in ("raw", "recovered", "healed")),
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
