"""What recovery gives back without training: none, batch-norm statistics, least squares.

ResNet-56 on CIFAR-10 (JPEG copy): widths by the global Taylor ranking at 20, 30, 40 and 60 % fewer
MACs, and 8 of 27 branches removed, those that benchmarks/branches.py found for batch-norm recovery
(seed 0). Calibration: 1 500 training images, shifted and mirrored as in training; the report split
is the last 7 000 test images. A vision transformer of 12 layers without batch norm, trained for two
minutes on 7 000 of the 10 000 digits of mnist10k.npz: 3 to 6 whole layers removed, those whose
single removal raises the loss least on 1 000 others (with the same recovery); calibration: 1 000
training images; the report split is the last 2 000 images.

    python benchmarks/recovery.py --data ../shared/data
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import edgewise as ew
import widths
from edgewise.evaluation.evaluator import Engine
from edgewise.search import Space
from edgewise.search.picks import ranked_pick
from machine import describe
from vision_transformer import VisionTransformer

RESULTS = Path(__file__).parent / "results"
EPOCHS, BATCH, RATE, DECAY, TRAIN = 14, 64, 2e-3, 0.05, 7000
Pairs = list[tuple[Tensor, Tensor]]


def rows(
    graph: ew.Graph, masks: dict[str, ew.Mask], kinds: Iterable[str], calibration: list,
    search: Pairs, report: Pairs,
) -> Iterable[dict]:  # fmt: skip
    """Every mask with every recovery."""
    for kind in kinds:
        recovery = ew.Recovery(kind, calibration if kind != "none" else None)
        objective = ew.Objective(search, "cross_entropy", "accuracy", recovery, report=report)
        engine = Engine(graph, objective)
        for name, mask in masks.items():
            begin = time.process_time()
            found = next(engine.evaluate([mask])).evaluation
            seconds = time.process_time() - begin
            last = next(engine.evaluate([mask], "report")).evaluation
            yield {
                "mask": name,
                "recovery": kind,
                "macs": ew.cost(graph, mask).macs / ew.cost(graph).macs,
                "search_cpu_seconds": round(seconds, 1),
                "search_loss": found.loss,
                "search_accuracy": found.metrics["accuracy"],
                "report_loss": last.loss,
                "report_accuracy": last.metrics["accuracy"],
                "removed": [graph.units[u].name for u in mask.removed],
            }


def resnet(options: argparse.Namespace) -> Iterable[dict]:
    task = widths.resnet(argparse.Namespace(data=options.data, recovery="batchnorm"))
    calibration = [images for images, _ in task.calibration(0)]
    search, report = task.batches("test", 0, 1000, 500), task.batches("test", 3000, 10000, 500)
    graph = task.graph(0, ("hidden",))
    picks = {f"{m:g} of the MACs": ranked_pick(Space(graph, ew.Budget(macs=m))) for m in task.macs}
    masks = {name: pick for name, pick in picks.items() if pick}
    yield from rows(graph, {"unpruned": graph.empty}, ("none",), calibration, search, report)
    yield from rows(graph, masks, ("batchnorm", "linear"), calibration, search, report)
    known = json.loads((RESULTS / "branches.json").read_text())["rows"]
    wanted = {"recovery": "batchnorm", "seed": 0, "method": "edgewise", "limit": 120}
    wanted |= {"removed_branches": 8}
    (gone,) = [r["removed"] for r in known if wanted.items() <= r.items()]
    graph = ew.trace(task.model(), (task.example,), granularity=("edge",))
    masks = {"8 of 27 branches": graph.mask(gone)}
    yield from rows(graph, masks, ("none", "batchnorm", "linear"), calibration, search, report)


def digits(folder: Path) -> tuple[Tensor, Tensor]:
    """Images [10000, 1, 28, 28] and labels."""
    data = np.load(folder / "mnist10k.npz")
    images = torch.from_numpy(data["images"]).float()[:, None] / 255
    return (images - 0.13) / 0.31, torch.from_numpy(data["labels"].astype(np.int64))


def trained(options: argparse.Namespace) -> VisionTransformer:
    """The transformer, from --weights if they exist; AdamW with one cycle of the rate."""
    torch.manual_seed(0)
    model = VisionTransformer(side=28, patch=7, channels=1, dim=48, depth=12, heads=4)
    if options.weights.exists():
        model.load_state_dict(load_file(options.weights))
        return model.eval()
    images, labels = digits(options.data)
    steps = EPOCHS * -(-TRAIN // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for _ in range(EPOCHS):
        for some in torch.randperm(TRAIN).split(BATCH):
            move = torch.randint(-2, 3, (2,)).tolist()
            loss = F.cross_entropy(model(images[some].roll(move, (2, 3))), labels[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    save_file(model.state_dict(), options.weights)
    return model.eval()


def transformer(options: argparse.Namespace) -> Iterable[dict]:
    model, (images, labels) = trained(options), digits(options.data)
    search, report = (
        list(zip(images[a:b].split(500), labels[a:b].split(500), strict=True))
        for a, b in ((7000, 8000), (8000, 10000))
    )
    calibration = [images[:1000]]
    graph = ew.trace(model, (images[:2],), granularity=("edge",))
    layers = [
        [u.name for u in graph.units if u.cost.macs and u.name.startswith(f"blocks.{k}.")]
        for k in range(12)
    ]
    for kind in ("none", "linear"):
        recovery = ew.Recovery(kind, calibration if kind != "none" else None)
        engine = Engine(graph, ew.Objective(search, "cross_entropy", recovery=recovery))
        single = {graph.mask(names): k for k, names in enumerate(layers)}
        losses = {o.evaluation.mask: o.evaluation.loss for o in engine.evaluate(list(single))}
        order = sorted(single, key=lambda mask: losses[str(mask)])
        masks = {"unpruned": graph.empty}
        for count in (3, 4, 5, 6):
            names = [name for mask in order[:count] for name in layers[single[mask]]]
            masks[f"{count} of 12 layers, chosen with {kind}"] = graph.mask(names)
        yield from rows(graph, masks, ("none", "linear"), calibration, search, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("vit-digits.safetensors"))
    parser.add_argument("--out", type=Path, default=RESULTS / "recovery.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name, task in (("ViT, 12 layers", transformer), ("ResNet-56", resnet)):
        for row in task(options):
            found.append({"network": name, **row})
            print({k: v for k, v in found[-1].items() if k != "removed"}, flush=True)
            text = json.dumps({"machine": describe(), "rows": found}, indent=1) + "\n"
            options.out.write_text(text)


if __name__ == "__main__":
    main()
