"""Detectors whose backbone alone is traced, pruned and exported, while the whole model is judged.

None of torchvision's detection models can be traced as a whole. Of each, `part="backbone"` is: five
random valid masks of one in 16 units are applied, and the outputs of the whole pruned model
(boxes, scores, labels, masks) compared with those of the whole model with its part masked; the
losses that the pruned detector gives in train mode must be finite; and the pruned part is exported
to ONNX, where onnxruntime compares it.

`--speed` measures the same masks of an SSDLite with the engine, in whose turns what is before
the part runs once a batch and masks share what they have in common, and in a loop over the whole
pruned models, in turns on the same data.

    python benchmarks/parts.py --out benchmarks/results/parts.json
    python benchmarks/parts.py --only ssd300_vgg16
    python benchmarks/parts.py --speed --out benchmarks/results/parts_speed.json

Every model runs in a process of its own.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models

import edgewise as ew
from coverage import elsewhere
from edgewise.evaluation.evaluator import Serial
from edgewise.pruning.verify import compare
from machine import describe

CLASSES = 5
KINDS = ("edge", "hidden")
ROUNDS = 3
ONE_IN = 16  # units that a mask removes
LIMIT = 900  # seconds of one model


def detector(name: str) -> nn.Module:
    """A detector with random weights for small images, its batch norms with statistics."""
    torch.manual_seed(0)
    sizes = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 96}
    if name.startswith(("fcos", "retinanet")):
        sizes["score_thresh"] = 0.0  # with random weights nothing is above theirs
    if name.startswith(("mask", "keypoint")):
        sizes["box_detections_per_img"] = 20  # each costs far more than the rest of the network
    model = models.get_model(
        name, weights=None, weights_backbone=None, num_classes=CLASSES, **sizes
    )
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics of what it sees, or random weights give next to nothing
    if norms:
        with torch.no_grad():
            model.backbone.train()(torch.randn(4, 3, 64, 96))
    return model.eval()


def images(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, 64, 64 + 16 * (i % 3), generator=generator) for i in range(count)]


def targets(shown: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """One box an image, with a mask and key points for those that want them."""
    points = torch.tensor([[[20.0, 30.0, 1.0]] * 17])
    return [
        {
            "boxes": torch.tensor([[10.0, 12.0, 50.0, 60.0]]),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, *image.shape[1:], dtype=torch.uint8),
            "keypoints": points,
        }
        for image in shown
    ]


def measure(name: str) -> dict[str, Any]:
    """One row."""
    model, shown = detector(name), images(2)
    begin = time.perf_counter()
    graph = ew.trace(model, (shown,), part="backbone", granularity=KINDS, slices=2)
    seconds = time.perf_counter() - begin
    count = max(len(graph.units) // ONE_IN, 2)  # few enough to leave it something to find
    masks = ew.sample_masks(graph, 5, removed=count, rng=np.random.default_rng(0))
    differences, losses, boxes = [], [], []
    for mask in masks:
        full, small = ew.masked(graph, mask), ew.prune(graph, mask)
        differences.append(compare(full, small, (shown,))[0])
        with torch.no_grad():
            boxes.append(sum(len(found["boxes"]) for found in small(shown)))
            losses.append(
                sum(v.sum() for v in small.train()(shown, targets(shown)).values()).item()
            )
        params = sum(p.numel() for p in small.parameters())
        assert params == ew.cost(graph, mask).params, (params, ew.cost(graph, mask).params)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = ew.export(small.eval().backbone, Path(folder) / "part.onnx", fixed=True)
    before = ew.cost(graph)
    return {
        "name": name,
        "frontend": graph.frontend,
        "units": len(graph.units),
        "trace_seconds": round(seconds, 1),
        "share_of_macs": 1 - graph.rest.macs / before.macs,
        "share_of_params": 1 - graph.rest.params / before.params,
        "removed": count,
        "max_difference": far if np.isfinite(far := max(differences)) else None,
        "boxes": boxes,
        "losses": losses,
        "finite": all(map(np.isfinite, losses)),
        "onnx_difference": written.difference,
    }


def speed(name: str = "ssdlite320_mobilenet_v3_large", count: int = 12) -> dict[str, Any]:
    """Masks a second of the engine, and of a loop over whole pruned models, in turns."""
    model = detector(name)
    data = [((images(2, seed),), targets(images(2, seed))) for seed in range(2)]
    graph = ew.trace(model, data[0][0], part="backbone")
    rng, masks = random.Random(0), [graph.empty]
    while len(masks) < count:  # as a search walks: each from one before, by a unit
        mask = rng.choice(masks).flipped(rng.randrange(len(graph.units)))
        if mask not in masks and ew.liveness(graph, mask).connected:
            masks.append(mask)
    objective = ew.Objective(data, loss=loss, run=run)
    small = [ew.prune(graph, mask) for mask in masks]
    found: dict[str, list[float]] = {"engine": [], "loop": []}
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        outcomes = list(Serial(graph, objective).evaluate(masks))
        found["engine"].append(count / (time.perf_counter() - begin))
        begin = time.perf_counter()
        alone = [objective.score(one, "search").loss for one in small]
        found["loop"].append(count / (time.perf_counter() - begin))
    known = {outcome.evaluation.mask: outcome.evaluation.loss for outcome in outcomes}
    pairs = [(known[str(mask)], lost) for mask, lost in zip(masks, alone, strict=True)]
    return {
        "name": name,
        "masks": count,
        "images": objective.samples("search"),
        "share_of_macs": 1 - graph.rest.macs / ew.cost(graph).macs,
        "masks_per_second": found,
        "times_faster": statistics.median(a / b for a, b in zip(*found.values(), strict=True)),
        "max_relative_difference": max(abs(a - b) / abs(b) for a, b in pairs),
    }


def run(model: Any, batch: Any) -> Any:
    """The losses of a detector: it gives them in train mode, which its backbone is kept from."""
    (shown,), wanted = batch
    for part in filter(None, (getattr(model, n, None) for n in ("rpn", "roi_heads"))):
        part.training = True
    model.training = True
    return model(shown, wanted)


def loss(outputs: dict[str, torch.Tensor], _: Any) -> torch.Tensor:
    return torch.stack(list(outputs.values())).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one model, in this process")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        print(json.dumps(measure(options.only)))
        return
    if options.speed:
        record = {"machine": describe(), **speed()}
    else:
        names = models.list_models(models.detection)
        rows = []
        for name in names:
            rows.append({"name": name, **elsewhere(partial(measure, name), LIMIT)})
            print(json.dumps(rows[-1]), flush=True)
        record = {"machine": describe(), "removed": ONE_IN, "rows": rows}
    text = json.dumps(record, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
