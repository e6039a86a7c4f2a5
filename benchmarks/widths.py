"""What units to offer: branches, widths, or both, without training, against Torch-Pruning.

ResNet-56 on CIFAR-10 (JPEG copy) at 20, 30, 40 and 60 % fewer MACs, with batch-norm recovery from
1 500 training images, shifted and mirrored as in training, for everybody; a vision transformer of
12 layers on Fashion-MNIST (trained by vit_fashion.py) at 20 and 40 %, without recovery; with
--recovery linear, least squares instead, for all but Torch-Pruning. edgewise
searches whole branches, widths (hidden channels, and heads of attention), and both jointly; rivals
are one global Taylor ranking of the widths, and Torch-Pruning with three importances. What is
searched for is likeness to the outputs of the unpruned network, which needs no labels and is far
less noisy than the loss. Seeds share the 1 000 search images (the first rows of the test file), and
have calibration and scoring images and random numbers of their own; the report split (7 000 images)
is used once for each final network.

    python benchmarks/widths.py resnet56 --data ../shared/data --seed 0 --methods taylor joint
    python benchmarks/widths.py vit --data /usr/share/datasets/fashion-mnist
    python benchmarks/widths.py merge

Finished evaluations are kept in --storage; run the same command again to resume.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew
import vit_fashion
from edgewise.cli.job.datasets import load_batches
from edgewise.cli.job.sections import DataSection
from edgewise.cli.job.toml_sections import Rows
from edgewise.search import Space
from edgewise.search.picks import ranked_pick
from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import resnet56

FINALISTS = 5  # at each budget
FLOOR = 0.005  # nats
CALIBRATION = "1500 images, shifted and mirrored as in training"
RESULTS = Path(__file__).parent / "results"
RIVALS = ("torch-pruning-l2", "torch-pruning-group", "torch-pruning-taylor")
METHODS = ("unpruned", "taylor", "branches", "widths", "joint", *RIVALS)


Targets = tuple[Tensor, Tensor]  # labels [n], probabilities [n, classes] of the unpruned network


def imitation(out: Tensor, targets: Targets) -> Tensor:
    """Kullback-Leibler divergence from the unpruned network's answers, above what it is at least.

    A label is one draw, and far noisier. The search sees the logarithm, hence the floor.
    """
    return F.kl_div(out.log_softmax(1), targets[1], reduction="none").sum(1) + FLOOR


def cross_entropy(out: Tensor, targets: Targets) -> Tensor:
    return F.cross_entropy(out, targets[0], reduction="none")


def accuracy(out: Tensor, targets: Targets) -> Tensor:
    return (out.argmax(1) == targets[0]).float()


@dataclass(frozen=True)
class Task:
    """A trained network and its data.

    Args:
        name: in the results.
        macs: what remains, in the order in which the budgets are searched.
        evaluations: at the first budget, after the first ones of single branches, and at others.
        example: one input.
        model: makes the trained network.
        batches: (train or test, first row, end, batch) to batches.
        widths: kinds of units beside the branches.
        augment: makes calibration images of training images, if training changed them.
        recovery: of everybody but Torch-Pruning, which has the task's batch-norm recovery or none.
    """

    name: str
    macs: tuple[float, ...]
    evaluations: tuple[int, int]
    example: Tensor
    model: Callable[[], nn.Module]
    batches: Callable[[str, int, int, int], list]
    widths: tuple[str, ...]
    augment: Callable[[Tensor, int], Tensor] | None
    recovery: str

    @property
    def default(self) -> str:
        """What everybody can do."""
        return "batchnorm" if self.augment else "none"

    def calibration(self, seed: int) -> list:
        """One batch; statistics of images as they are differ from those seen in training."""
        pairs = self.batches("train", 2000 * seed, 2000 * seed + 1500, 1500)
        if self.augment is None:
            return pairs
        return [(self.augment(images, seed), labels) for images, labels in pairs]

    def scoring(self, seed: int) -> list:
        """1 500 training images as they are, to order channels by."""
        return self.batches("train", 2000 * seed, 2000 * seed + 1500, 100)

    def objective(self, seed: int) -> ew.Objective:
        return ew.Objective(
            self.imitated(0, 1000),
            loss=imitation,
            metrics={"accuracy": accuracy, "cross_entropy": cross_entropy},
            recovery=ew.Recovery(
                self.recovery, self.calibration(seed) if self.recovery != "none" else None
            ),
            verify=self.imitated(1000, 3000),
            report=self.imitated(3000, 10000),
        )

    def imitated(self, start: int, stop: int) -> list:
        """Test images with (labels, what the unpruned network gives)."""
        model = self.model()
        with torch.no_grad():
            return [
                (x, (y, model(x).softmax(1))) for x, y in self.batches("test", start, stop, 100)
            ]

    def graph(self, seed: int, kinds: tuple[str, ...]) -> ew.Graph:
        """The network with these units; units that save no MACs are left out."""
        taylor = ew.importance.taylor(self.scoring(seed), F.cross_entropy)
        graph = ew.trace(self.model(), (self.example,), granularity=kinds, importance=taylor)
        return graph.select(lambda unit: unit.kind != "edge" or unit.cost.macs > 0)

    def kinds(self, method: str) -> tuple[str, ...]:
        return {"branches": ("edge",), "joint": ("edge", *self.widths)}.get(method, self.widths)


def resnet(options: argparse.Namespace) -> Task:
    last = {"memory_format": torch.channels_last}

    def batches(name: str, start: int, stop: int, batch: int) -> list:
        section = DataSection(
            source=str(options.data / f"cifar10-{name}.parquet"),
            batch=batch,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        pairs = load_batches(section, Rows(start, stop))
        return [(images.contiguous(**last), targets) for images, targets in pairs]

    def model() -> nn.Module:
        net = resnet56()
        net.load_state_dict(load_file(options.data / "resnet56_cifar10.safetensors"))
        return net.eval().to(**last)

    example = torch.randn(1, 3, 32, 32)
    macs = (0.4, 0.6, 0.7, 0.8)  # what tells most first: there masks differ most
    recovery = options.recovery or "batchnorm"
    counts = (32, 16) if recovery == "batchnorm" else (16, 8)  # linear recovery takes longer
    return Task("ResNet-56", macs, counts, example, model, batches, ("hidden",), cropped, recovery)


def cropped(images: Tensor, seed: int) -> Tensor:
    """Each image [3, 32, 32] shifted by up to 4 pixels, and every other one mirrored."""
    random = torch.Generator().manual_seed(seed)
    padded = F.pad(images, (4, 4, 4, 4))
    places = torch.randint(0, 9, (len(images), 2), generator=random).tolist()
    moved = [image[:, i : i + 32, j : j + 32] for image, (i, j) in zip(padded, places, strict=True)]
    turned = [image.flip(2) if n % 2 else image for n, image in enumerate(moved)]
    return torch.stack(turned).contiguous(memory_format=torch.channels_last)


def transformer(options: argparse.Namespace) -> Task:
    def batches(name: str, start: int, stop: int, batch: int) -> list:
        file = {"test": "t10k"}.get(name, name)
        return vit_fashion.fashion(options.data, file, start, stop, batch)

    def model() -> nn.Module:
        return vit_fashion.network(options.weights)

    example, widths = torch.randn(1, 1, 28, 28), ("hidden", "heads")
    recovery = options.recovery or "none"
    return Task(
        "ViT, 12 layers", (0.6, 0.8), (80, 40), example, model, batches, widths, None, recovery
    )


def ours(task: Task, study: ew.Study, seed: int) -> Iterable[dict]:
    """All budgets from one study; a later one starts from all that is known."""
    spent = 0
    for macs in task.macs:
        begin = time.time()
        budget = ew.Budget(macs=macs)
        single = [u for u in study.graph.units if not u.group]
        first, later = task.evaluations
        count = later if spent else 1 + len(single) + first
        study.run(evaluations=count, budget=budget, seed=seed)
        plan = study.plan(budget, finalists=FINALISTS)
        mask = study.graph.mask(bits=plan.bits)
        known = [e for e in study.evaluations if e.split != "report"]
        yield row(study, macs, mask, len(known) - spent, time.time() - begin)
        spent = len(known)


def row(study: ew.Study, macs: float, mask: ew.Mask, evaluations: int, seconds: float) -> dict:
    search, report = study.evaluate([mask])[0], study.evaluate([mask], "report")[0]
    cost = ew.cost(study.graph, mask)
    return {
        "macs": macs,
        "reached_macs": cost.macs / ew.cost(study.graph).macs,
        "params": cost.params,
        "evaluations": evaluations,
        "seconds": round(seconds, 1),
        "search_imitation": search.loss,
        "report_loss": report.metrics["cross_entropy"],
        "report_accuracy": report.metrics["accuracy"],
        "removed": [study.graph.units[u].name for u in mask.removed],
    }


def ranking(task: Task, study: ew.Study) -> Iterable[dict]:
    """Widths by one global Taylor ranking, per MAC saved; nothing is searched."""
    for macs in task.macs:
        mask = ranked_pick(Space(study.graph, ew.Budget(macs=macs)))
        assert mask is not None
        yield row(study, macs, mask, 0, 0.0)


def rival(task: Task, method: str, seed: int) -> Iterable[dict]:
    """Torch-Pruning, with the same recovery."""
    from rivals import channels

    begin, splits = time.time(), task.objective(seed)
    whole = channels.macs(task.model(), task.example)
    scoring = task.scoring(seed)[:5]
    for macs, model in channels.pruned(task.model(), task.example, scoring, method, task.macs):
        if task.augment:
            channels.recover(model, task.calibration(seed)[0][0])
        with torch.no_grad():
            search, report = (
                splits.measure([model(*inputs) for inputs, _ in splits.splits[name]], name)
                for name in ("search", "report")
            )
        yield {
            "macs": macs,
            "reached_macs": channels.macs(model, task.example) / whole,
            "params": channels.params(model),
            "evaluations": 0,
            "seconds": round(time.time() - begin, 1),
            "search_imitation": search.loss,
            "report_loss": report.metrics["cross_entropy"],
            "report_accuracy": report.metrics["accuracy"],
        }


def run(task: Task, options: argparse.Namespace, method: str) -> Iterable[dict]:
    seed = options.seed
    if method in RIVALS:
        return rival(task, method, seed)
    graph = task.graph(seed, task.kinds(method))
    name = f"{options.task}-{method}-{task.recovery}-{seed}"
    study = ew.Study(graph, task.objective(seed), f"sqlite:///{options.storage}-{name}.db", name)
    if method == "unpruned":
        return [row(study, 1.0, graph.empty, 0, 0.0)]
    return ranking(task, study) if method == "taylor" else ours(task, study, seed)


def merge() -> None:
    """All partial results as one file, in the place of older ones, and a table of accuracies."""
    parts = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("widths-part-*.json"))]
    rows = [row for part in parts for row in part["rows"]]
    new, file = {run_of(row) for row in rows}, RESULTS / "widths.json"
    if file.exists():
        older = json.loads(file.read_text())
        parts = [older, *parts]
        rows = [row for row in older["rows"] if run_of(row) not in new] + rows
    result = {"machine": parts[0]["machine"], "rows": rows}
    file.write_text(json.dumps(result, indent=1) + "\n")
    for name in dict.fromkeys(run_of(row)[:4] for row in rows):
        same = [r for r in rows if run_of(r)[:4] == name]
        cells = []
        for macs in sorted({r["macs"] for r in same}, reverse=True):
            hits = [100 * r["report_accuracy"] for r in same if r["macs"] == macs]
            cells.append(f"{macs:g}: {np.mean(hits):.1f} ({min(hits):.1f}-{max(hits):.1f})")
        print(*(part for part in name if part), "", *cells, sep="  ")


def run_of(row: dict) -> tuple[str | None, ...]:
    return (
        *(row.get(key) for key in ("network", "method", "recovery", "calibration")),
        row["seed"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("resnet56", "vit", "merge"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("vit.safetensors"))
    parser.add_argument("--storage", default="widths")
    parser.add_argument("--recovery", choices=("none", "batchnorm", "linear"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    if options.task == "merge":
        merge()
        return
    torch.set_num_threads(1)
    task = {"resnet56": resnet, "vit": transformer}[options.task](options)
    for method in options.methods:
        rows = []
        for found in run(task, options, method):
            recovery = task.recovery if method not in RIVALS else task.default
            run_is = {"network": task.name, "method": method, "seed": options.seed}
            run_is |= {"recovery": recovery, "calibration": CALIBRATION if task.augment else None}
            rows.append({**run_is, **found})
            print({k: v for k, v in rows[-1].items() if k != "removed"}, flush=True)
            part = RESULTS / f"widths-part-{options.task}-{method}-{recovery}-{options.seed}.json"
            part.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
