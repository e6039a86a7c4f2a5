"""A job measures the same elsewhere, and carries the code that is not installed there."""

import functools
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import edgewise as ew
import jobs
from edgewise.cli.job.sources import load_function
from edgewise.errors import ExecutorError
from edgewise.evaluation.evaluator import Engine
from edgewise.evaluation.ray import shipping
from edgewise.graph.operators.absence import by_axes
from edgewise.graph.operators.table import TABLE
from zoo import ZOO, build, traced

cloudpickle = pytest.importorskip("ray.cloudpickle")
pack = functools.partial(shipping.pack, pickle=cloudpickle)
unpack = functools.partial(shipping.unpack, pickle=cloudpickle)


def listing(graph: ew.Graph) -> list[str]:
    """One line a node; its name is what vertices know it by."""
    nodes = graph.program.module.graph.nodes
    return [f"{n.name} {n.op} {n.target} {n.args} {n.kwargs}" for n in nodes]


@pytest.mark.parametrize(
    "name", sorted(ZOO.keys() - {"normed"})
)  # torch pickles no parametrisations
def test_a_program_stays_as_it_is(name: str) -> None:
    graph, args = traced(name), build(name)[1]
    objective = ew.Objective([(args, torch.zeros(2))], loss=jobs.losses)
    other, same = unpack(pack(graph, objective))
    assert other.fingerprint == graph.fingerprint
    assert same.fingerprint == objective.fingerprint
    assert listing(other) == listing(graph)
    with torch.no_grad():
        ours, theirs = graph.program.module(*args), other.program.module(*args)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)


@pytest.mark.parametrize("make", [jobs.make, jobs.make_of_part])
def test_the_same_is_measured(make) -> None:
    graph, objective = make()
    masks = [graph.mask([unit]) for unit in range(len(graph.units))]
    ours = Engine(graph, objective).evaluate(masks)
    ruled = ew.restrict(graph, at_most={"edge": 0.5})  # the graph without it has a program, too
    theirs = Engine(*unpack(pack(ruled, objective))).evaluate(masks)
    assert [o.evaluation.loss for o in theirs] == [o.evaluation.loss for o in ours]


def test_recovery_of_a_model_of_two_inputs_is_kept() -> None:
    graph, objective = jobs.make()
    pair = (torch.ones(2), torch.zeros(2))
    recovery = ew.Recovery("batchnorm", [(pair, None)])
    objective = ew.Objective(objective.splits["search"], jobs.losses, recovery=recovery)
    _, same = unpack(pack(graph, objective))
    assert len(same.recovery.batches[0]) == 2


def test_loaders_stay_at_home() -> None:
    """What gave the batches may be anything: a generator, a data set with workers."""
    graph, objective = jobs.make()
    one_pass = (batch for batch in objective.splits["search"])
    _, same = unpack(pack(graph, ew.Objective(one_pass, jobs.losses)))
    assert same.samples("search") == 32


CODE = """
from loose_sibling import SCALE
from torch.nn import functional as F

def loss(outputs, targets):
    return SCALE * F.cross_entropy(outputs, targets, reduction="none")
"""


def test_code_of_loose_files_travels(tmp_path: Path) -> None:
    (tmp_path / "loose_sibling.py").write_text("SCALE = 2.0\n")
    (tmp_path / "loose.py").write_text(CODE)
    graph, objective = jobs.make(load_function(f"{tmp_path / 'loose.py'}:loss"))
    cargo = tmp_path / "cargo"
    cargo.write_bytes(pack(graph, objective))
    elsewhere = (
        "import sys, ray.cloudpickle as pickle; from pathlib import Path\n"
        "from edgewise.evaluation.ray.shipping import unpack\n"
        "from edgewise.evaluation.evaluator import Engine\n"
        "graph, objective = unpack(Path(sys.argv[1]).read_bytes(), pickle)\n"
        "print(next(Engine(graph, objective).evaluate([graph.empty])).evaluation.loss)"
    )
    said = subprocess.run(
        [sys.executable, "-c", elsewhere, str(cargo)], capture_output=True, text=True, cwd=tmp_path
    )
    expected = next(Engine(graph, objective).evaluate([graph.empty])).evaluation.loss
    assert float(said.stdout) == pytest.approx(expected, rel=1e-6), said.stderr


def test_rules_of_the_user_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(x):
        return x

    monkeypatch.setattr(TABLE, "rules", dict(TABLE.rules))
    monkeypatch.setattr(TABLE, "targets", dict(TABLE.targets))
    ew.register(target, ew.Rule("of_the_user", by_axes))
    cargo = pack(*jobs.make())
    del TABLE.rules["of_the_user"], TABLE.targets[target]
    unpack(cargo)
    assert TABLE.rules["of_the_user"].name == "of_the_user"


@pytest.mark.parametrize(("where", "said"), [("loss", "The loss"), ("metric", "Metric 'size'")])
def test_what_cannot_travel_is_named(where: str, said: str) -> None:
    lock = threading.Lock()

    def locked(outputs, targets):
        with lock:
            return jobs.losses(outputs, targets)

    graph, objective = jobs.make(locked if where == "loss" else jobs.losses)
    if where == "metric":
        objective = ew.Objective(objective.splits["search"], jobs.losses, metrics={"size": locked})
    with pytest.raises(ExecutorError, match=f"{said} cannot be sent to workers.*lock.*inside"):
        pack(graph, objective)


def test_another_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cargo = pack(*jobs.make())
    monkeypatch.setattr(shipping, "__version__", "0.0.1")
    with pytest.raises(ExecutorError, match=r"edgewise 0\.0\.1 instead of"):
        unpack(cargo)
