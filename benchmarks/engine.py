"""What the evaluation engine saves: ResNets on CIFAR-10 (JPEG copy), one thread.

Against two loops that measure one mask after another with plain PyTorch: (a) `zeroed`: the full
model, removed branches multiplied by zero; (b) `skipped`: removed branches are not run, nothing is
shared; (c) is (b) with channels last and batches of 62, the engine's own layout. All in CPU
seconds a mask. The engine works in chunks that share nothing with each other, so some chunks of a
set of masks, evenly spaced, stand for the set; after each chunk the loops run a few of its masks,
so that the noise of the machine hits all alike.

    python benchmarks/engine.py --data ../shared/data --out benchmarks/results/engine.json
    python benchmarks/engine.py plot    # needs matplotlib

`--sections growth` measures one part anew and keeps the others.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew
from branches import data
from edgewise.evaluation.engine import EngineOptions
from edgewise.evaluation.engine.order import visiting_order
from edgewise.evaluation.evaluator import Engine
from machine import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from resnet_cifar import Block, ResNet

IMAGES, CHUNK, LOOPED = 500, EngineOptions().chunk, 2
SECTIONS = ("ratios", "memory", "growth")
Batches = list[tuple[Tensor, Tensor]]


class Gated(nn.Module):
    """A block whose branch or skip may be off: run and multiplied by zero, or not run."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block, self.branch, self.skip, self.zeroes = block, True, True, True

    def forward(self, x: Tensor) -> Tensor:
        b = self.block
        y = None
        if self.branch or self.zeroes:
            y = b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x))))) * float(self.branch)
        if b.stride != 1 and (self.skip or self.zeroes):
            half = b.extra // 2
            x = F.pad(x[:, :, :: b.stride, :: b.stride], (0, 0, 0, 0, half, half))
        if self.zeroes:
            return F.relu(y + x * float(self.skip))
        return F.relu(x if y is None else y + x if self.skip else y)


class Loop:
    """One mask after another, with plain PyTorch."""

    def __init__(self, model: ResNet, graph: ew.Graph, batches: Batches, calibration: Batches,
                 zeroes: bool, last: bool = False) -> None:  # fmt: skip
        kind = {"memory_format": torch.channels_last} if last else {}
        self.model = load(len(model.layer1), None)
        self.model.load_state_dict(model.state_dict())
        self.model.to(**kind)
        self.gates = {}
        for stage in ("layer1", "layer2", "layer3"):
            blocks = getattr(self.model, stage)
            for i, block in enumerate(blocks):
                blocks[i] = self.gates[f"{stage}.{i}"] = Gated(block)
                blocks[i].zeroes = zeroes
        self.units = [unit.name for unit in graph.units]
        size = 62 if last else IMAGES
        self.batches = [(a.contiguous(**kind), b) for x, y in batches
                        for a, b in zip(x.split(size), y.split(size), strict=True)]  # fmt: skip
        self.calibration = [x.contiguous(**kind) for x, _ in calibration]

    @torch.inference_mode()
    def seconds(self, mask: ew.Mask) -> tuple[float, float]:
        """(CPU seconds, loss) of one mask."""
        begin = process_time()
        names = [self.units[u] for u in mask.removed]
        for place, gate in self.gates.items():
            gate.branch = f"{place}.conv1..{place}.bn2" not in names
            gate.skip = not any(
                n.endswith(f"->{place}.add") or n.startswith(f"{place}.getitem") for n in names
            )
        if self.calibration:
            norms = [m for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)]
            for norm in norms:
                norm.momentum = 1.0
            self.model.train()
            self.model(self.calibration[0])
        self.model.eval()
        losses = [F.cross_entropy(self.model(x), y, reduction="sum") for x, y in self.batches]
        loss = sum(map(float, losses)) / sum(len(y) for _, y in self.batches)
        return process_time() - begin, loss


def load(blocks: int, folder: Path | None) -> ResNet:
    """A ResNet of 6 * blocks + 2 layers, trained if a folder has its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet(blocks)
    if folder is not None:
        model.load_state_dict(load_file(folder / "resnet56_cifar10.safetensors"))
    return model.eval()


def traced(model: ResNet, skips: bool = False) -> ew.Graph:
    """The network with its branches as units, and its skips if wanted."""
    graph = ew.trace(model, (torch.randn(1, 3, 32, 32),), granularity="edge")
    return graph if skips else graph.select(["* branch"])


def objective(batches: Batches, calibration: Batches) -> ew.Objective:
    kind = "batchnorm" if calibration else "none"
    return ew.Objective(batches, F.cross_entropy, recovery=ew.Recovery(kind, calibration or None))


def sampled(graph: ew.Graph, count: int, removed: int) -> list[ew.Mask]:
    rng = np.random.default_rng(0)
    return ew.sample_masks(graph, count, removed=removed, rng=rng)


def chunks(graph: ew.Graph, masks: Sequence[ew.Mask], count: int) -> list[list[ew.Mask]]:
    """Some of the chunks in which the engine visits the masks, evenly spaced."""
    order = visiting_order(graph, masks)
    parts = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]
    return [parts[round(i)] for i in np.linspace(0, len(parts) - 1, min(count, len(parts)))]


def engine_seconds(engine: Engine, masks: Sequence[ew.Mask]) -> tuple[float, dict[str, float]]:
    """CPU seconds of some masks, and their losses."""
    begin = process_time()
    found = {o.evaluation.mask: o.evaluation.loss for o in engine.evaluate(masks)}
    return process_time() - begin, found


def compare(name: str, model: ResNet, graph: ew.Graph, masks: Sequence[ew.Mask], count: int,
            batches: Batches, calibration: Batches) -> dict:  # fmt: skip
    """The engine and the three loops, in turn, on some chunks of the masks."""
    engine = Engine(graph, objective(batches, calibration))
    loops = {
        "zeroed": Loop(model, graph, batches, calibration, True),
        "skipped": Loop(model, graph, batches, calibration, False),
        "skipped_tuned": Loop(model, graph, batches, calibration, False, last=True),
    }
    spent, seconds = {name: [] for name in loops}, []
    apart = 0.0
    for part in chunks(graph, masks, count):
        taken, losses = engine_seconds(engine, part)
        seconds.append(taken / len(part))
        for mask in part[:: max(len(part) // LOOPED, 1)][:LOOPED]:
            for loop, times in zip(loops.values(), spent.values(), strict=True):
                took, loss = loop.seconds(mask)
                times.append(took)
                apart = max(apart, abs(loss / losses[str(mask)] - 1))
    mean = {loop: float(np.mean(times)) for loop, times in spent.items()}
    ours = float(np.mean(seconds))
    return {
        "masks": f"{len(masks)} {name}",
        "recovery": "batchnorm" if calibration else "none",
        "measured_masks": min(count * CHUNK, len(masks)),
        "measured_in_loops": len(spent["zeroed"]),
        "engine_seconds": round(ours, 3),
        **{f"{loop}_seconds": round(value, 3) for loop, value in mean.items()},
        **{f"times_over_{loop}": round(value / ours, 2) for loop, value in mean.items()},
        "largest_relative_difference_of_losses": apart,
    }


def growth(folder: Path, batches: Batches) -> Iterator[dict]:
    """CPU seconds a mask as masks, images and depth grow."""
    model = load(9, folder)
    graph = traced(model)
    for count in (100, 300, 1000, 3000):
        engine = Engine(graph, objective(batches[:1], []))
        parts = chunks(graph, sampled(graph, count, 8), 3)[1:2]
        taken = np.mean([engine_seconds(engine, part)[0] / len(part) for part in parts])
        yield {"grows": "masks", "value": count, "engine_seconds": round(float(taken), 3)}
    part = chunks(graph, sampled(graph, 100, 8), 3)[1][:8]
    images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    for count in (250, 500, 1000, 2000, 4000):
        some = list(zip(images[:count].split(IMAGES), labels[:count].split(IMAGES), strict=True))
        taken = engine_seconds(Engine(graph, objective(some, [])), part)[0] / len(part)
        yield {"grows": "images", "value": count, "engine_seconds": round(taken, 3)}
    for blocks in (3, 6, 9, 18):
        model = load(blocks, None)
        graph = traced(model)
        part = chunks(graph, sampled(graph, 100, round(0.3 * 3 * blocks)), 3)[1]
        engine = Engine(graph, objective(batches[:1], []))
        taken = engine_seconds(engine, part)[0] / len(part)
        yield {"grows": "depth", "value": 6 * blocks + 2, "engine_seconds": round(taken, 3)}


def plot(rows: Sequence[dict], path: Path) -> None:
    """Seconds a mask against what grows, three panels side by side."""
    from matplotlib import pyplot

    kinds = {"masks": "masks (500 images)", "images": "images (8 masks)", "depth": "layers"}
    figure, panels = pyplot.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    for panel, (kind, label) in zip(panels, kinds.items(), strict=True):
        some = [row for row in rows if row["grows"] == kind]
        x, y = ([row[key] for row in some] for key in ("value", "engine_seconds"))
        panel.plot(x, y, "o-", color="#3b6ea5")
        panel.set_xlabel(label)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        if kind == "masks":
            panel.set_xscale("log")
            panel.set_ylabel("CPU seconds a mask")
    figure.savefig(path, dpi=130)


def memory(folder: Path) -> list[dict]:
    """Peak memory above that before, each in a process of its own."""
    context, rows = multiprocessing.get_context("spawn"), []
    for what in ("plain forward", "engine", "engine, batchnorm", "engine, batchnorm, 64MiB kept"):
        with context.Pool(1) as pool:
            rows.append({"what": what, "peak_mib": round(pool.apply(peak, (what, folder)))})
    return rows


def peak(what: str, folder: Path) -> float:
    """MiB that a plain forward of 500 images takes at its peak, or the engine on 16 masks."""
    torch.set_num_threads(1)
    model = load(9, folder)
    batches = data(folder, "test", 0, IMAGES)
    calibration = data(folder, "train", 0, IMAGES) if "batchnorm" in what else []
    graph = traced(model)
    part = chunks(graph, sampled(graph, 500, 8), 3)[1]
    with torch.inference_mode():
        model(batches[0][0][:8])  # code and buffers that are loaded once
    options = EngineOptions(memory="64MiB" if "64MiB" in what else EngineOptions().memory)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    if what == "plain forward":
        with torch.inference_mode():
            model(batches[0][0])
    else:
        list(Engine(graph, objective(batches, calibration), options).evaluate(part[:16]))
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    """KiB in memory now (VmRSS) or at the peak (VmHWM), as Linux has it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/engine.json"))
    parser.add_argument("--chunks", type=int, default=2, help="chunks that stand for a set")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("what", nargs="?", choices=("measure", "plot"), default="measure")
    options = parser.parse_args()
    if options.what == "plot":
        plot(json.loads(options.out.read_text())["growth"], Path("docs/engine-growth.png"))
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = data(options.data, "test", 0, 4000)
    calibration = data(options.data, "train", 0, IMAGES)
    model = load(9, options.data)
    some, both = traced(model), traced(model, skips=True)
    alone = [both.mask([u]) for u in range(len(both.units))]
    alone = [mask for mask in alone if ew.liveness(both, mask).connected]
    results: dict = json.loads(options.out.read_text()) if options.out.exists() else {}
    results |= {"machine": describe(), **{section: [] for section in options.sections}}

    def add(section: str, rows: Iterator[dict] | Sequence[dict]) -> None:
        for row in rows:
            results[section].append(row)
            print(row, flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n")

    sets: list[tuple[str, ew.Graph, list[ew.Mask]]] = [
        ("random masks, 8 of 27 branches removed", some, sampled(some, 500, 8)),
        ("masks, each without one of 27 branches and 27 skips", both, alone),
    ]
    for recovery in ([], calibration) if "ratios" in options.sections else ():
        for name, graph, masks in sets:
            count = max(options.chunks // (2 if recovery else 1), 1)
            add("ratios", [compare(name, model, graph, masks, count, batches[:1], recovery)])
    if "memory" in options.sections:
        add("memory", memory(options.data))
    if "growth" in options.sections:
        add("growth", growth(options.data, batches))


if __name__ == "__main__":
    main()
