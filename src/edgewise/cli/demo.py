"""The whole job in a minute: a small residual network on scikit-learn's digits."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..evaluation.objective import Objective, Recovery
from ..evaluation.records import Evaluation, Progress
from ..graph.budget import Budget
from ..graph.cost import cost
from ..pruning.heal import Healing, heal
from ..pruning.plan import Plan
from ..pruning.prune import prune
from ..pruning.weights import save
from ..study.study import Study
from ..tracing.trace import trace
from ..values.files import write_text
from . import digits_net
from .digits_net import DigitsNet

BUDGET = Budget(macs=0.5)
EVALUATIONS = 90
Say = Callable[[str], None]
Row = dict[str, float]


@dataclass(frozen=True)
class Digits:
    """Disjoint splits: train for weights and statistics, the others only for measuring."""

    train: tuple[Tensor, Tensor]
    search: tuple[Tensor, Tensor]
    verify: tuple[Tensor, Tensor]
    report: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: a table of rows by name, and its files."""

    rows: dict[str, Row]
    plan: Plan
    evaluations: list[Evaluation]
    files: dict[str, Path]


class Shuffled:
    """Batches of the training data in a new order every epoch."""

    def __init__(self, data: tuple[Tensor, Tensor], batch: int, seed: int) -> None:
        self.data, self.batch = data, batch
        self.random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.data[0]) // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.data[0]), generator=self.random)
        for rows in order.split(self.batch):
            yield self.data[0][rows], self.data[1][rows]


def digits() -> Digits:
    """scikit-learn's 1 797 digits in four splits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)[order] / 8 - 1
    labels = torch.tensor(data.target)[order]
    cuts = [0, 800, 1100, 1400, len(labels)]
    parts = [(images[a:b], labels[a:b]) for a, b in pairwise(cuts)]
    return Digits(*parts)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float()


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def train(data: Digits, seed: int) -> nn.Module:
    """A trained DigitsNet; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsNet()
    settings = Healing(epochs=10, lr=0.1, distill=0.0)
    return heal(model, Shuffled(data.train, 64, seed), settings=settings)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: small networks gain nothing by more, and where other work keeps a
    core busy, threads that wait for each other take minutes for what one does in seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def run_demo(
    directory: Path,
    *,
    seed: int = 0,
    say: Say = lambda _: None,
    progress: Callable[[Progress], Any] | None = None,
) -> DemoResult:
    """Train, trace, search, prune, verify, fine-tune, measure and write a report.

    Args:
        directory: where plan, weights and report go.
        seed: of everything random.
        say: told what happens, a line a step.
        progress: told after every evaluation.

    Returns:
        The table's rows (params, MACs, latency in milliseconds for 64 images, accuracy on
        untouched digits) and the files.
    """
    data = digits()
    say("Training a residual network of 21 convolutions on 800 digits …")
    model = train(data, seed)
    graph = trace(model, (data.train[0][:1],))
    say(f"Traced: {len(graph.vertices)} operators, {len(graph.units)} removable units.")
    objective = Objective(
        [data.search], loss=losses, metrics={"accuracy": accuracy},
        recovery=Recovery("batchnorm", [data.train[0]]),
        verify=[data.verify], report=[data.report],
    )  # fmt: skip
    study = Study(graph, objective, name="digits")
    say(f"Measuring {EVALUATIONS} masks to find the best with half of the MACs …")
    study.run(EVALUATIONS, BUDGET, seed=seed, progress=progress)
    plan = study.plan(progress=progress)
    small = prune(graph, plan)  # raises if the two differ
    say(f"Removed {len(plan.removed)} units; the pruned model equals the masked one.")
    say("Fine-tuning the pruned network for three epochs, taught by the original …")
    healed = heal(small, Shuffled(data.train, 64, seed + 1), teacher=model)
    before, after = cost(graph), plan.after
    rows = {
        "unpruned": _row(model, before.params, before.macs, data.report),
        "pruned": _row(small, after.params, after.macs, data.report),
        "fine-tuned": _row(healed, after.params, after.macs, data.report),
    }
    leave(directory, model, data)
    files = {
        "plan": plan.save(directory / "plan.json"),
        "weights": save(healed, directory / "pruned.safetensors"),
        "report": _report(directory / "report.html", study, plan, rows),
        "network": directory / "network.py",
        "images": directory / "digits",
    }
    return DemoResult(rows, plan, study.evaluations, files)


def leave(directory: Path, model: nn.Module, data: Digits) -> None:
    """The network, its weights and the digits as images, for the first job of one's own."""
    from PIL import Image

    write_text(directory / "network.py", Path(digits_net.__file__).read_text("utf-8"))
    save(model, directory / "network.safetensors")
    held_out = [torch.cat(both) for both in zip(data.search, data.verify, data.report, strict=True)]
    for name, (images, labels) in (("train", data.train), ("val", held_out)):
        for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            folder = directory / "digits" / name / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = ((image[0] + 1) * 127.5).round().byte()
            Image.fromarray(pixels.numpy()).save(folder / f"{row}.png")


def _report(path: Path, study: Study, plan: Plan, rows: dict[str, Row]) -> Path:
    from ..report import Outcome, render, write
    from .job.sections import ModelSection
    from .job.sources import loading
    from .job.toml_sections import Source

    report, healed = plan.measured["report"], rows["fine-tuned"]
    after = replace(
        report,
        loss=healed["loss"],
        metrics={"accuracy": healed["accuracy"]},
        interval=None,
        metric_intervals={},
    )
    times = (rows["unpruned"]["latency_ms"], rows["pruned"]["latency_ms"])
    extra = {"Command": "edgewise demo"}
    again = "study.run(budget=ew.Budget({limits})); study.plan()"
    insight = replace(study.insight(plan), again=again)
    files = {
        "pruned.safetensors": "weights of the pruned network, fine-tuned",
        "plan.json": "what was chosen and why",
        "plan.tensors.safetensors": "recovered statistics: stays beside plan.json",
        "network.py": "the unpruned network's class",
        "network.safetensors": "its weights",
        "digits": "its images",
    }
    steps = {
        "Prune it as a job": "edgewise init network.py:DigitsNet digits "
        "--weights network.safetensors",
        "Hand it on as ONNX": 'ew.export(small, "small.onnx")',
    }
    load = loading(ModelSection(Source("network.py:DigitsNet")), "pruned.safetensors")
    outcome = Outcome(after, times, files, load, steps)
    page = render(
        study.graph, study.evaluations, plan, title="edgewise demo: digits",
        outcome=outcome, extra=extra, insight=insight,
    )  # fmt: skip
    return write(path, page)


def _row(model: nn.Module, params: int, macs: int, data: tuple[Tensor, Tensor]) -> Row:
    with torch.no_grad():
        outputs = model.eval()(data[0])
    return {
        "params": params,
        "macs": macs,
        "latency_ms": latency(model, data[0][:64]),
        "loss": float(losses(outputs, data[1]).mean()),
        "accuracy": float(accuracy(outputs, data[1]).mean()),
    }


def latency(model: nn.Module, inputs: Tensor, repeats: int = 30) -> float:
    """Median wall time of a forward pass in milliseconds."""
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 5):
            begin = time.perf_counter()
            model(inputs)
            times.append(time.perf_counter() - begin)
    return 1000 * median(times[5:])
