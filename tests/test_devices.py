"""Data follow the network to its device.

`meta` stands in for an accelerator: tensors there have a device and a shape, and no values. Tests
that need a real one run with `pytest -m accelerator`.
"""

import multiprocessing
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgewise as ew
import jobs
from edgewise.cli.job.sections import ModelSection
from edgewise.cli.job.sources import load_model
from edgewise.cli.job.toml_sections import Source
from edgewise.errors import EdgewiseWarning
from edgewise.evaluation.calibration import recalibrated
from edgewise.evaluation.engine.pieces import Pieces
from edgewise.evaluation.evaluator import Engine
from edgewise.pruning.heal import _value
from edgewise.study import scores
from edgewise.testing import laws
from edgewise.values.arguments import call
from edgewise.values.nested import device_of, moved
from zoo import ZOO, build

META = torch.device("meta")
X, Y = torch.randn(6, 4), torch.randint(0, 3, (6,))
on_accelerator = pytest.mark.accelerator


def test_what_moves_and_what_stays() -> None:
    value = {"ids": X, "rest": [Y, 3, None]}
    found = moved(value, META)
    assert [device_of(found), found["rest"][0].device, found["rest"][1:]] == [META, META, [3, None]]
    assert moved(value, None) is value
    assert device_of({"no": "tensor"}) is None


def test_a_batch_is_taken_to_the_model() -> None:
    model = nn.Linear(4, 3, device=META)
    assert call(model, X).device == call(model, {"input": X}).device == META
    assert call(nn.Identity(), X) is X


def test_pieces_lie_on_their_device() -> None:
    ((_, part),) = Pieces(None, True, META).of([(torch.randn(2, 3, 4, 4),)])
    (image,) = Pieces(None, True, META).laid_out(part)
    assert image.device == META
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_healing_takes_targets_to_the_outputs() -> None:
    model, teacher = nn.Linear(4, 3, device=META), nn.Linear(4, 3, device=META)
    value = _value(model, teacher, X, Y, F.cross_entropy, ew.Healing())
    assert value.device == META


def test_healing_takes_the_loss_and_the_teacher_too() -> None:
    model, teacher = nn.Linear(4, 3, device=META), nn.Linear(4, 3, device=META)
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    assert _value(model, teacher, X, Y, loss, ew.Healing()).device == META


def test_measures_go_where_outputs_are() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    objective = ew.Objective([(X, Y)], loss)
    with pytest.raises(NotImplementedError, match="meta"):  # no value to read, but computed there
        objective.measure([torch.randn(6, 3, device=META)], "search")
    assert loss.weight is not None
    assert loss.weight.device == META


STATES = {
    "untouched": "pass",
    "medium": "torch.set_float32_matmul_precision('medium')",
    "older": "backends.cuda.matmul.allow_tf32 = True",
    "off": "backends.cudnn.allow_tf32 = False",
    "newer": "backends.cudnn.conv.fp32_precision = 'ieee'",
    "all": "backends.fp32_precision = 'tf32'",
}
LOOK = """
import torch
from edgewise.values.precision import full_precision
backends = torch.backends
try:
    {state}
except AttributeError:
    raise SystemExit from None  # torch before 2.9
def look():
    found = []
    for text in ("backends.fp32_precision", "backends.cuda.matmul.fp32_precision",
                 "backends.cudnn.conv.fp32_precision", "backends.cudnn.rnn.fp32_precision",
                 "backends.cuda.matmul.allow_tf32", "backends.cudnn.allow_tf32",
                 "torch.get_float32_matmul_precision()"):
        try:
            found.append(eval(text))
        except (RuntimeError, AttributeError) as error:
            found.append(type(error))
    return found
before = look()
try:
    with full_precision():
        inside = look()
        1 / 0
except ZeroDivisionError:
    pass
assert look() == before, (before, look())
assert "tf32" not in inside[1:4] and True not in inside, inside
"""


@pytest.mark.parametrize("state", STATES)
def test_full_precision_ends_where_it_began(state: str) -> None:
    """In a process of its own, as settings of torch cannot all be taken back."""
    servers = multiprocessing.get_context("forkserver")
    servers.set_forkserver_preload(["edgewise.study.study"])  # as in jobs.py
    process = servers.Process(target=exec, args=(LOOK.format(state=STATES[state]), {}))
    process.start()
    process.join()
    assert process.exitcode == 0


def there(**options: Any) -> ew.Graph:
    """Three residual blocks on the accelerator."""
    model, args = build("residual")
    return ew.trace(model.cuda(), moved(args, torch.device("cuda")), **options)


@pytest.fixture
def job() -> tuple[ew.Graph, ew.Objective]:
    """The job of jobs.py with its network on the accelerator and its data where they were."""
    return there(granularity=("edge", "layer")), jobs.make()[1]


@on_accelerator
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_laws_hold_there(name: str) -> None:
    model, args = build(name)
    laws.check_laws(model.cuda(), moved(args, torch.device("cuda")), masks=2)


@on_accelerator
@pytest.mark.parametrize("recovery", ["none", "batchnorm", "linear"])
def test_losses_are_those_of_the_processor(recovery: str) -> None:
    graph, objective = jobs.make(recovery=recovery)
    other = there(granularity=("edge", "layer"))
    draw = random.Random(0)
    masks = list({laws.random_mask(graph, draw) for _ in range(12)})
    found = [
        {o.evaluation.mask: o.evaluation.loss for o in Engine(g, objective).evaluate(m)}
        for g, m in ((graph, masks), (other, [other.mask(bits=str(mask)) for mask in masks]))
    ]
    assert None not in found[0].values()
    assert found[1] == pytest.approx(found[0], rel=5e-3)  # TF32


@on_accelerator
def test_a_search_there_ends_in_a_pruned_model(
    job: tuple[ew.Graph, ew.Objective], tmp_path: Path
) -> None:
    graph, objective = job
    table = ew.latency.measure(graph, networks=3, rounds=3)
    assert table.target.device == "cuda"
    study = ew.Study(graph, objective, latency=table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgewiseWarning)
        study.run(20, jobs.BUDGET, seed=0)
        plan = study.plan(finalists=3)
    small = ew.prune(graph, plan)
    assert device_of(small) == torch.device("cuda", 0)
    read = ew.Plan.load(plan.save(tmp_path / "plan.json"))  # its tensors are on the processor
    weights = ew.save(ew.prune(graph, read), tmp_path / "small.safetensors")
    for make in (lambda: build("residual")[0], lambda: build("residual")[0].cuda()):
        ew.load(make, read, weights)
    for name in ("small.onnx", "small.pt2"):
        ew.export(small, tmp_path / name)
    assert recalibrated(graph, objective).loss > 0
    losses = [(x, y) for x, y in objective.splits["search"]]
    assert scores.taylor(graph, losses, F.cross_entropy).shape == (len(graph.units),)
    assert scores.influence(graph, losses).shape == (len(graph.units),)


@on_accelerator
@pytest.mark.parametrize("precision", [None, "bf16"])
def test_healing_there(job: tuple[ew.Graph, ew.Objective], precision: str | None) -> None:
    graph, objective = job
    small = ew.prune(graph, graph.mask([0]))
    accelerator = None
    if precision is not None:
        accelerator = pytest.importorskip("accelerate").Accelerator(mixed_precision=precision)
    batches = [(x, y) for (x,), y in objective.splits["search"]]
    settings = ew.Healing(epochs=3, lr=1e-3)
    healed = ew.heal(
        small, batches, teacher=graph.program.module, settings=settings, accelerator=accelerator,
        validate=lambda model: objective.score(model, "verify").loss,
    )  # fmt: skip
    assert device_of(healed) == torch.device("cuda", 0)
    assert objective.score(healed, "report").loss > 0


@on_accelerator
def test_widths_by_importance_there() -> None:
    (x,) = build("residual")[1]
    batches = [(x, torch.zeros(len(x), dtype=torch.long))]
    graph = there(granularity="hidden", importance=ew.importance.taylor(batches, F.cross_entropy))
    assert any(unit.importance > 0 for unit in graph.units)
    assert device_of(ew.prune(graph, graph.mask([0]))) == torch.device("cuda", 0)


@on_accelerator
def test_a_config_says_where_the_model_runs() -> None:
    model = load_model(ModelSection(Source("torchvision:resnet18"), device="cuda"))
    assert device_of(model) == torch.device("cuda", 0)
