"""Two trained detectors, pruned to shares of the whole model's MACs, beside Torch-Pruning.

A Faster R-CNN (MobileNet-V3, FPN) of torchvision and a YOLOv8n of ultralytics, from scratch on
drawn shapes (drawn_shapes.py); the second by its own trainer. Of the first the backbone and neck
are traced by `part`, of the second everything but the head is (`keep`). A search with batch-norm
recovery sees the detection losses of the search split, its finalists meet on the verify split, and
mean average precision (torchmetrics) is that of the report split, which nothing was chosen by.

Torch-Pruning removes coupled channels of the same layers, by the Taylor importance of the same
losses on training pictures, in small steps until the same share is left. Both are then measured as
pruned, with batch-norm statistics from the same pictures, and after the same short healing.
Latency is a thread's own time for one picture, the two networks in turns.

    python benchmarks/detectors.py --out benchmarks/results/detectors.json

Weights are kept in --folder, evaluations in its study.db, and finished rows in --out: run the same
command again to resume. `--train NAME` trains one network and ends.
"""

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.detection import MeanAveragePrecision

import edgewise as ew
from drawn_shapes import NAMES, SIZE, tensors, yolo_files
from machine import describe

SHARES = (0.8, 0.6)
EVALUATIONS, FINALISTS, SLICES = 24, 4, 4
CALIBRATION = 64  # training pictures
STEPS, SCORED = 40, 16  # of Torch-Pruning: from nothing to all gone; pictures that score a step
BATCH, ROUNDS = 16, 15
FEW = 8  # pictures of a step of training
EPOCHS = {"rcnn": 16, "yolov8n": 22}
HEALING = ew.Healing(epochs=1, optimizer="adamw", lr=5e-4, distill=0.0)


@dataclass(frozen=True)
class Detector:
    """What differs between the two.

    Args:
        name: of the row.
        model: trained, in eval mode.
        traced: arguments of `ew.trace`.
        batch: the inputs and targets of some examples.
        loss: of a model's outputs and targets.
        run: what the loss sees of a model and a batch; None = what the model gives.
        found: the boxes of a model in pictures, as torchmetrics takes them.
        core: the module whose channels Torch-Pruning removes, and its last layers, which stay.
    """

    name: str
    model: nn.Module
    traced: dict[str, Any]
    batch: Callable[[list], tuple[Any, Any]]
    loss: Callable[[Any, Any], Tensor]
    run: Callable[[nn.Module, Any], Any] | None
    found: Callable[[nn.Module, list[Tensor]], list[dict[str, Tensor]]]
    core: Callable[[nn.Module], tuple[nn.Module, list[nn.Module]]]

    def batches(self, split: str, count: int | None = None) -> list[tuple[Any, Any]]:
        examples = tensors(split)[:count]
        return [self.batch(examples[i : i + BATCH]) for i in range(0, len(examples), BATCH)]

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        outputs = self.run(model, batch) if self.run else model(batch[0])
        return self.loss(outputs, batch[1])


# -- Faster R-CNN ------------------------------------------------------------------------------


def rcnn(folder: Path) -> Detector:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn as make
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

    torch.manual_seed(0)
    model = make(
        weights=None, weights_backbone=None, num_classes=len(NAMES) + 1, min_size=2 * SIZE,
        max_size=2 * SIZE, rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=12, box_batch_size_per_image=32,
    )  # fmt: skip
    # few shapes in a picture: few proposals and a small head, or nearly all MACs are theirs
    model.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 128)
    model.roi_heads.box_predictor = FastRCNNPredictor(128, len(NAMES) + 1)
    weights = folder / "rcnn.safetensors"
    if not weights.exists():
        train_rcnn(model, folder / "rcnn.pt")
        save_file(model.state_dict(), weights)
    model.load_state_dict(load_file(weights))
    return Detector("fasterrcnn_mobilenet_v3_large_320_fpn", model.eval(), {"part": "backbone"},
                    rcnn_batch, lambda found, _: sum(found.values()), rcnn_losses, rcnn_found,
                    lambda model: (model.backbone, list(model.backbone.fpn.modules())))  # fmt: skip


def rcnn_batch(examples: list) -> tuple[Any, Any]:
    wanted = [{"boxes": boxes, "labels": labels + 1} for _, boxes, labels in examples]
    return [image for image, _, _ in examples], wanted


def rcnn_losses(model: Any, batch: Any) -> Any:
    """The losses of a detector: it gives them in train mode, its norms stay in their own."""
    for module in (model, model.rpn, model.roi_heads):
        module.training = True
    return model(*batch)


def rcnn_found(model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    return [{**one, "labels": one["labels"] - 1} for one in model(images)]


def train_rcnn(model: nn.Module, kept: Path) -> None:
    """Train, and go on from the epoch that was finished last."""
    examples, steps = tensors("train"), len(tensors("train")) // FEW
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    total = EPOCHS["rcnn"] * steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total, pct_start=0.15)
    state, first = {"model": model, "optimizer": optimizer, "schedule": schedule}, 0
    if kept.exists():
        found = torch.load(kept)
        first = found.pop("epoch") + 1
        for name, values in found.items():
            state[name].load_state_dict(values)
    for epoch in range(first, EPOCHS["rcnn"]):
        model.train()
        torch.manual_seed(epoch)
        order, lost = torch.randperm(len(examples)), 0.0
        for step in range(steps):
            chosen = [examples[i] for i in order[step * FEW : (step + 1) * FEW]]
            mirror = torch.rand(FEW) < 0.5
            images, wanted = rcnn_batch(
                [mirrored(e) if yes else e for e, yes in zip(chosen, mirror, strict=True)]
            )
            loss = sum(model(images, wanted).values())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            schedule.step()
            lost += loss.item() / steps
        print(f"epoch {epoch}: loss {lost:.3f}", flush=True)
        torch.save({"epoch": epoch, **{k: v.state_dict() for k, v in state.items()}}, kept)


def mirrored(example: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    image, boxes, labels = example
    left, top, right, bottom = boxes.unbind(1)
    return image.flip(2), torch.stack([SIZE - right, top, SIZE - left, bottom], 1), labels


# -- YOLOv8n -----------------------------------------------------------------------------------


def yolov8n(folder: Path) -> Detector:
    os.environ.setdefault("YOLO_CONFIG_DIR", str(folder))
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG
    from ultralytics.utils.loss import v8DetectionLoss
    from ultralytics.utils.nms import non_max_suppression

    weights = folder / "runs" / "yolo" / "weights" / "last.pt"
    if not weights.exists():
        torch.manual_seed(0)
        YOLO("yolov8n.yaml").train(
            data=str(yolo_files(folder)), imgsz=SIZE, epochs=EPOCHS["yolov8n"], batch=BATCH,
            workers=0, device="cpu", plots=False, val=False, project=str(folder / "runs"),
            name="yolo", exist_ok=True, seed=0, mosaic=0.0, warmup_epochs=1, optimizer="AdamW",
            lr0=0.002, verbose=False, amp=False,
        )  # fmt: skip
    model = YOLO(str(weights)).model.float().eval().requires_grad_(True)
    model.args = DEFAULT_CFG  # the weights of the three losses, as the trainer has them
    criterion = v8DetectionLoss(model)

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        rows, _ = (targets[..., 0] >= 0).nonzero(as_tuple=True)
        some = targets[targets[..., 0] >= 0]
        wanted = {"batch_idx": rows.float(), "cls": some[:, 0], "bboxes": some[:, 1:]}
        return criterion(outputs, wanted)[0].sum() / len(targets)

    def found(model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
        kept = non_max_suppression(model(torch.stack(images))[0], 0.001, 0.6, max_det=50)
        return [{"boxes": one[:, :4], "scores": one[:, 4], "labels": one[:, 5].long()}
                for one in kept]  # fmt: skip

    head = len(model.model) - 1
    return Detector("yolov8n", model, {"keep": [f"model.{head}"]}, yolo_batch, loss, None, found,
                    lambda model: (model, [model.get_submodule(f"model.{head}")]))  # fmt: skip


def yolo_batch(examples: list) -> tuple[Tensor, Tensor]:
    """Pictures, and (class, middle, sides) of each box as shares of a picture; -1 is no box."""
    targets = torch.full((len(examples), max(len(e[2]) for e in examples), 5), -1.0)
    for row, (_, boxes, labels) in zip(targets, examples, strict=True):
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        row[: len(labels)] = torch.cat([labels[:, None], middle / SIZE, sides / SIZE], 1)
    return torch.stack([image for image, _, _ in examples]), targets


# -- pruning -----------------------------------------------------------------------------------


def ours(detector: Detector, folder: Path) -> Iterator[tuple[float, nn.Module, dict[str, Any]]]:
    """(share, pruned model, what is told of it) for every share."""
    data, calibration = detector.batches("search"), detector.batches("train", CALIBRATION)
    graph = ew.trace(
        detector.model, (detector.batches("search", 2)[0][0],), granularity=("edge", "hidden"),
        slices=SLICES, **detector.traced,
    )  # fmt: skip
    objective = ew.Objective(
        data, loss=detector.loss, run=detector.run, verify=detector.batches("verify"),
        recovery=ew.Recovery("batchnorm", calibration),
    )  # fmt: skip
    with ew.Study(graph, objective, f"sqlite:///{folder}/study.db", detector.name) as study:
        for share in SHARES:
            budget = ew.Budget(macs=share)
            study.run(evaluations=EVALUATIONS, budget=budget, seed=0)
            plan = study.plan(budget, finalists=FINALISTS)
            small = ew.prune(graph, graph.mask(bits=plan.bits))
            yield share, small, {"units": len(graph.units), "removed": len(plan.removed),
                                 "evaluations": len(study.evaluations)}  # fmt: skip


def theirs(detector: Detector, _: Path) -> Iterator[tuple[float, nn.Module, dict[str, Any]]]:
    """The same by Torch-Pruning."""
    import torch_pruning as tp

    model = unsplit(copy.deepcopy(detector.model))
    core, ignored = detector.core(model)
    image = torch.rand(1, 3, SIZE, SIZE)
    pruner = tp.pruner.BasePruner(
        core, image, tp.importance.GroupTaylorImportance(), global_pruning=True,
        pruning_ratio=1.0, max_pruning_ratio=0.95, iterative_steps=STEPS, ignored_layers=ignored,
    )  # fmt: skip
    batch, whole = detector.batches("train", SCORED)[0], macs(detector, model)
    for share in SHARES:
        while macs(detector, model) > share * whole:
            model.eval().zero_grad()
            detector.losses(model, batch).backward()
            pruner.step()
        yield share, copy.deepcopy(model), {"steps": pruner.current_step}


class Halves(nn.Module):
    """A C2f of ultralytics whose halves come from convolutions of their own.

    Torch-Pruning 1.6.1 does not follow channels through the `chunk` that makes them of one.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.first, self.second = copy.deepcopy(block.cv1), copy.deepcopy(block.cv1)
        for part, rows in ((self.first, slice(block.c)), (self.second, slice(block.c, None))):
            part.conv.weight = nn.Parameter(part.conv.weight[rows].detach().clone())
            part.conv.out_channels = part.bn.num_features = block.c
            for name in ("weight", "bias"):
                setattr(part.bn, name, nn.Parameter(getattr(part.bn, name)[rows].detach().clone()))
            for name in ("running_mean", "running_var"):
                setattr(part.bn, name, getattr(part.bn, name)[rows].clone())
        self.m, self.cv2 = block.m, block.cv2
        self.f, self.i = block.f, block.i

    def forward(self, x: Tensor) -> Tensor:
        found = [self.first(x), self.second(x)]
        for inner in self.m:
            found.append(inner(found[-1]))
        return self.cv2(torch.cat(found, 1))


def unsplit(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "C2f":
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, Halves(module))
    return model


METHODS = {"edgewise": ours, "torch-pruning": theirs}


def with_statistics(model: nn.Module, detector: Detector) -> nn.Module:
    """A copy whose batch norms have those of the calibration pictures."""
    model = copy.deepcopy(model).eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    images = [image for image, _, _ in tensors("train")[:CALIBRATION]]
    with torch.no_grad():
        detector.found(model, images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


# -- measuring ---------------------------------------------------------------------------------


def precision(model: nn.Module, detector: Detector) -> dict[str, float]:
    """Mean average precision on the report split."""
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    examples = tensors("report")
    with torch.no_grad():
        for i in range(0, len(examples), BATCH):
            some = examples[i : i + BATCH]
            found = detector.found(model.eval(), [image for image, _, _ in some])
            metric.update(found, [{"boxes": b, "labels": k} for _, b, k in some])
    result = metric.compute()
    return {"map": result["map"].item(), "map50": result["map_50"].item()}


def macs(detector: Detector, model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector.found(model.eval(), [tensors("report")[0][0]])
    return counter.get_total_flops() // 2


def latency(detector: Detector, small: nn.Module) -> float:
    """The median of a pruned network's time as a share of the whole one's."""
    images, ratios = [tensors("report")[0][0]], []

    def once(model: nn.Module) -> float:
        begin = time.thread_time()
        detector.found(model, images)
        return time.thread_time() - begin

    with torch.inference_mode():
        for _ in range(ROUNDS):
            before = once(detector.model)
            ratios.append(once(small) / before)
    return statistics.median(ratios)


def measure(detector: Detector, small: nn.Module) -> dict[str, Any]:
    """Costs and precision of a pruned network on its way to a healed one."""
    recovered = with_statistics(small, detector)
    loader = detector.batches("train")
    healed = ew.heal(recovered, loader, loss=detector.loss, run=detector.run, settings=HEALING)
    whole = sum(p.numel() for p in detector.model.parameters())
    return {
        "macs": macs(detector, small) / macs(detector, detector.model),
        "params": sum(p.numel() for p in small.parameters()) / whole,
        "latency": latency(detector, small),
        "pruned": precision(small, detector),
        "recovered": precision(recovered, detector),
        "healed": precision(healed, detector),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("../detectors"))
    parser.add_argument("--only", nargs="+", choices=("rcnn", "yolov8n"))
    parser.add_argument("--train", action="store_true", help="only train")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/detectors.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    record = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    rows = record["rows"]
    for make in (yolov8n, rcnn):
        if options.only and make.__name__ not in options.only:
            continue
        detector = make(folder)
        if options.train:
            continue
        for method, choices in METHODS.items():
            done = [r for r in rows if (r["detector"], r["method"]) == (detector.name, method)]
            if len(done) == len(SHARES) or any("error" in row for row in done):
                continue
            names = {"detector": detector.name, "method": method}
            try:
                for share, small, told in choices(detector, folder):
                    if share not in [row["share"] for row in done]:
                        found = {"before": precision(detector.model, detector), **told}
                        rows.append({**names, "share": share, **found,
                                     **measure(detector, small)})  # fmt: skip
                        print(json.dumps(rows[-1]), flush=True)
                        write(options.out, rows)
            except Exception as error:
                rows.append({**names, "share": None, "error": f"{type(error).__name__}: {error}"})
                print(json.dumps(rows[-1]), flush=True)
                write(options.out, rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
