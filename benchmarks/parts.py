"""Models of which a part alone is traced, pruned and exported, while the whole model is judged.

None of torchvision's detection models can be traced as a whole. Of each, `part="backbone"` is: five
random valid masks of one in 16 units are applied, and the outputs of the whole pruned model
(boxes, scores, labels, masks) compared with those of the whole model with its part masked; the
losses that the pruned detector gives in train mode must be finite; and the pruned part is exported
to ONNX, where onnxruntime compares it.

So are parts of a RAFT, which decides by sizes, and the U-Net of a pipeline that runs it in a loop:
their losses are those of a flow and of the noise that was added to fixed latents. The size of
latents is fixed by tracing; for another one the pipeline is traced again, and gives the same units.

`--speed` measures the same masks of an SSDLite with the engine, in whose turns what is before
the part runs once a batch and masks share what they have in common, and in a loop over the whole
pruned models, in turns on the same data.

    python benchmarks/parts.py --out benchmarks/results/parts.json
    python benchmarks/parts.py --only ssd300_vgg16
    python benchmarks/parts.py --again "diffusers unet" --out benchmarks/results/parts.json
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
from collections.abc import Callable
from dataclasses import dataclass
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
LIMIT = 3000  # seconds of one model


def detector(name: str) -> nn.Module:
    """A detector with random weights for small images, its batch norms with statistics."""
    torch.manual_seed(0)
    sizes = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 96}
    if name.startswith(("fcos", "retinanet")):
        sizes["score_thresh"] = 0.0  # with random weights nothing is above theirs
    if name.startswith(("mask", "keypoint")):
        sizes["box_detections_per_img"] = 4  # each costs far more than the rest of the network
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


@dataclass(frozen=True)
class Case:
    """A model to prune a part of.

    Args:
        model: in eval mode.
        inputs: of one call; the first are the example; at others it is traced anew.
        part: the path.
        loss: what a pruned model loses.
        count: how many boxes it finds, where it finds any.
    """

    model: nn.Module
    inputs: list[tuple[Any, ...]]
    part: str
    loss: Callable[[nn.Module], torch.Tensor]
    count: Callable[[nn.Module], int] | None = None


def detection(name: str) -> Case:
    shown = images(2)

    def count(small: nn.Module) -> int:
        return sum(len(found["boxes"]) for found in small(shown))

    def lost(small: nn.Module) -> torch.Tensor:
        return sum(v.sum() for v in small.train()(shown, targets(shown)).values())

    return Case(detector(name), [(shown,)], "backbone", lost, count)


def flow(part: str) -> Case:
    """RAFT, whose loss is that of a sequence of estimated flows."""
    torch.manual_seed(0)
    model = models.optical_flow.raft_small().eval()
    pair = (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128), 2)

    def lost(small: nn.Module) -> torch.Tensor:
        flows = small(*pair)
        return sum(0.8 ** (len(flows) - i) * (f - 1).abs().mean() for i, f in enumerate(flows))

    return Case(model, [pair], part, lost)


class Denoising(nn.Module):
    """A text-to-image pipeline between text and decoder: a U-Net in the loop of a scheduler."""

    def __init__(self, steps: int = 2) -> None:
        from diffusers import DDIMScheduler, UNet2DConditionModel

        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=24,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4,
        )  # fmt: skip
        self.scheduler = DDIMScheduler()
        self.scheduler.set_timesteps(steps)

    def forward(self, latents: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        for step in self.scheduler.timesteps:
            noise = self.unet(latents, step, text).sample
            latents = self.scheduler.step(noise, step, latents).prev_sample
        return latents


def denoising(_: str) -> Case:
    torch.manual_seed(0)
    model, text, step = Denoising().eval(), torch.randn(1, 5, 24), torch.tensor(400)
    latents, noise = torch.randn(2, 1, 4, 16, 16)
    noisy = model.scheduler.add_noise(latents, noise, step)

    def lost(small: nn.Module) -> torch.Tensor:
        return nn.functional.mse_loss(small.unet(noisy, step, text).sample, noise)

    return Case(model, [(latents, text), (torch.randn(1, 4, 24, 24), text)], "unet", lost)


OTHERS = {
    "raft_small feature_encoder": flow,
    "raft_small context_encoder": flow,
    "raft_small update_block": flow,
    "diffusers unet": denoising,
}


def measure(name: str) -> dict[str, Any]:
    """One row."""
    case = OTHERS[name](name.split()[-1]) if name in OTHERS else detection(name)
    begin = time.perf_counter()
    graph, *others = (
        ew.trace(case.model, inputs, part=case.part, granularity=KINDS, slices=2)
        for inputs in case.inputs
    )
    seconds = time.perf_counter() - begin
    count = max(len(graph.units) // ONE_IN, 2)  # few enough to leave it something to find
    masks = ew.sample_masks(graph, 5, removed=count, rng=np.random.default_rng(0))
    differences, losses, boxes = [], [], []
    for mask in masks:
        names = [graph.units[unit].name for unit in mask.removed]
        for traced, inputs in zip([*others, graph], reversed(case.inputs), strict=True):
            same = traced.mask(names)
            small = ew.prune(traced, same)
            differences.append(compare(ew.masked(traced, same), small, inputs)[0])
        with torch.no_grad():
            boxes += [case.count(small)] if case.count else []
            losses.append(case.loss(small).item())
        params = sum(p.numel() for p in small.parameters())
        assert params == ew.cost(graph, mask).params, (params, ew.cost(graph, mask).params)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = small.eval().get_submodule(case.part)
        written = ew.export(alone, Path(folder) / "part.onnx", fixed=True)
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
    parser.add_argument("--again", nargs="+", help="these alone, the other rows as they are")
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
        known = options.out and options.out.exists()
        rows = json.loads(options.out.read_text())["rows"] if known and options.again else []
        for name in options.again or [*models.list_models(models.detection), *OTHERS]:
            row = {"name": name, **elsewhere(partial(measure, name), LIMIT)}
            rows = [row if other["name"] == name else other for other in rows]
            rows += [row] * (row not in rows)
            print(json.dumps(row), flush=True)
        record = {"machine": describe(), "removed": ONE_IN, "rows": rows}
    text = json.dumps(record, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
