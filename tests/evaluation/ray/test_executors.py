"""Both executors give the same; with Ray nothing is lost when workers die, hang or come late."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import edgewise as ew
import jobs
from edgewise.errors import ExecutorError
from edgewise.evaluation.evaluator import Executor, Serial
from edgewise.evaluation.ray.executor import _check_reachable
from edgewise.study import measuring

HERE = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,  # a cluster takes minutes to start and to kill on a busy machine
    pytest.mark.xdist_group("ray"),  # one Ray for all of them
    pytest.mark.filterwarnings("ignore:No worker is ready"),  # on a busy machine
]


def moody(folder: Path):
    """A loss that does what files in a folder say: once "hang", always "kill" at some loss."""

    def loss(outputs, targets):
        values = jobs.losses(outputs, targets)
        here = os.environ.get("EDGEWISE_DRIVER") != str(os.getpid())
        if here and (folder / "hang").exists():
            try:
                (folder / "hang").unlink()  # for one worker only
            except FileNotFoundError:
                return values
            time.sleep(600)
        if here and (folder / "kill").exists():
            killer = float((folder / "kill").read_text())
            if float(values.double().mean()) == killer:
                os.kill(os.getpid(), signal.SIGKILL)
        if (folder / "slow").exists():
            time.sleep(0.03)
        return values

    return loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moods")


@pytest.fixture(scope="module")
def job(folder: Path) -> tuple[ew.Graph, ew.Objective]:
    os.environ["EDGEWISE_DRIVER"] = str(os.getpid())
    return jobs.make(moody(folder))


@pytest.fixture(scope="module")
def workers(job) -> Iterator[Executor]:
    pytest.importorskip("ray")
    executor = ew.Ray(workers=2, patience=4.0)(*job)
    yield executor
    pids = executor.pids
    executor.close()
    assert gone(pids)
    with pytest.raises(ExecutorError, match="closed"):
        list(executor.evaluate([job[0].empty]))


@pytest.fixture(autouse=True)
def calm(folder: Path) -> Iterator[None]:
    yield
    for mood in folder.iterdir():
        mood.unlink()


@pytest.fixture(params=["serial", "ray"])
def executor(request, job) -> Executor:
    return Serial(*job) if request.param == "serial" else request.getfixturevalue("workers")


def some_masks(graph: ew.Graph, count: int = 60) -> list[ew.Mask]:
    units = range(len(graph.units))
    return [graph.mask({u, v}) for u in units for v in range(u + 1)][:count]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


def losses_of(executor: Executor, masks: list[ew.Mask]) -> dict[str, float | None]:
    records = [outcome.evaluation for outcome in executor.evaluate(masks)]
    assert Counter(r.mask for r in records) == Counter(map(str, masks))
    return {r.mask: r.loss for r in records}


def test_outcomes_are_those_of_the_engine_to_the_last_bit(executor: Executor, job) -> None:
    masks, split = some_masks(job[0], 30), "verify:01101111"
    ours = {o.evaluation.mask: o for o in Serial(*job).evaluate(masks, split, tensors=True)}
    theirs = list(executor.evaluate(masks, split, tensors=True))
    assert len(theirs) == len(ours)
    for outcome in theirs:
        mine = ours[outcome.evaluation.mask]
        for name in ("loss", "metrics", "samples", "status", "split", "error"):
            assert getattr(outcome.evaluation, name) == getattr(mine.evaluation, name)
        if mine.each is not None:
            assert torch.equal(outcome.each, mine.each)
        assert outcome.tensors.keys() == mine.tensors.keys()
        assert all(torch.equal(outcome.tensors[k], mine.tensors[k]) for k in mine.tensors)


def test_failures_are_outcomes(executor: Executor, job) -> None:
    graph = job[0]
    names = ["blocks.1.first.0..blocks.1.norm", "blocks.0.relu->blocks.1.add"]
    masks = [graph.mask([0]), graph.mask(names)]
    records = {o.evaluation.mask: o.evaluation for o in executor.evaluate(masks)}
    assert records[str(masks[0])].ok
    assert "removes every path" in (records[str(masks[1])].error or "")


def test_nothing_is_measured_without_masks(executor: Executor) -> None:
    assert list(executor.evaluate([])) == []


def test_an_abandoned_evaluation_leaves_nobody_busy(executor: Executor, job, folder: Path) -> None:
    masks = some_masks(job[0])
    (folder / "slow").touch()
    outcomes = executor.evaluate(masks)
    next(iter(outcomes))
    busy = [h.pid for h in executor.hands if h.chunk] if hasattr(executor, "hands") else []
    outcomes.close()
    assert gone(busy)
    (folder / "slow").unlink()
    assert losses_of(executor, masks[:4]) == losses_of(Serial(*job), masks[:4])


def test_a_study_begun_serially_ends_on_ray_with_the_same_plan(
    workers, job, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker is killed under load on the way; most masks see some of the examples."""
    monkeypatch.setattr(measuring, "WORTH", 0.0)
    alone = ew.Study(*job, name="job")
    alone.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    ew.Study(*job, url, "job").run(6, jobs.BUDGET, seed=3)
    study = ew.Study(*job, url, "job", executor=lambda *_: workers)
    killed: list[int] = []

    def kill_once(progress) -> None:
        busy = [hand.pid for hand in workers.hands if hand.chunk]
        if progress.done > 6 and busy and not killed:
            killed.append(busy[0])
            os.kill(busy[0], signal.SIGKILL)

    (folder / "slow").touch()
    study.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3, progress=kill_once)
    assert killed
    measured = {(e.mask, e.split, e.loss, e.status) for e in study.evaluations}
    assert len(measured) == len(study.evaluations) > jobs.EVALUATIONS
    assert measured == {(e.mask, e.split, e.loss, e.status) for e in alone.evaluations}
    assert study.plan(finalists=5).to_dict() == alone.plan(finalists=5).to_dict()


def test_a_mask_that_kills_its_workers_is_a_failure(workers, job, folder: Path) -> None:
    masks = some_masks(job[0], 12)
    losses = losses_of(Serial(*job), masks)
    killer = masks[5]
    (folder / "kill").write_text(repr(first_batch_loss(job, killer)))
    records = {o.evaluation.mask: o.evaluation for o in workers.evaluate(masks)}
    failed = records.pop(str(killer))
    assert failed.status == "failed"
    assert "3 workers died while they measured this mask" in (failed.error or "")
    assert {m: r.loss for m, r in records.items()} == {
        m: loss for m, loss in losses.items() if m != str(killer)
    }


def first_batch_loss(job, mask: ew.Mask) -> float:
    """The mean loss of the first batch, as the engine computes it."""
    graph, objective = job
    seen: list[float] = []

    def spy(outputs, targets):
        values = jobs.losses(outputs, targets)
        seen.append(float(values.double().mean()))
        return values

    splits = objective.splits
    same = ew.Objective(splits["search"], loss=spy, recovery=objective.recovery)
    list(Serial(graph, same).evaluate([mask]))
    return seen[0]


def test_what_a_hanging_worker_had_is_measured_by_another(workers, job, folder: Path) -> None:
    masks = some_masks(job[0])
    losses = losses_of(Serial(*job), masks)
    losses_of(workers, masks[:8])  # both are there and have been timed
    (folder / "hang").touch()
    begin = time.monotonic()
    assert losses_of(workers, masks) == losses
    assert not (folder / "hang").exists()
    assert time.monotonic() - begin < 600  # it was not waited for


def test_workers_that_join_are_used(workers, job, folder: Path) -> None:
    workers.count = 1
    for hand in workers.hands[1:]:
        workers._drop(hand)
    list(workers.evaluate(some_masks(job[0], 2)))
    assert len(workers.hands) == 1
    workers.count = 2
    (folder / "slow").touch()  # lasts until the cluster is looked at again
    list(workers.evaluate(some_masks(job[0], 40)))
    assert len(workers.hands) == 2


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutorError, match=r"pip install 'edgewise\[ray\]'"):
        ew.Study(*jobs.make(), executor=ew.Ray())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", r"no Ray cluster at '127.0.0.1:9'.*ray start --head"),
        ("ray://127.0.0.1:10001", "HOST:PORT"),
        ("somewhere", "HOST:PORT"),
    ],
)
def test_an_unreachable_address_is_said_at_once(address: str, message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ExecutorError, match=message):
        _check_reachable(address)
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    "wish",
    [
        {"workers": 0},
        {"threads": 0},
        {"patience": 0.0},
        {"gpus": -1},
        {"gpus": float("nan")},
        {"gpus": True},
    ],
)
def test_senseless_settings_are_refused(wish: dict) -> None:
    with pytest.raises(ExecutorError, match="must be a"):
        ew.Ray(**wish)


SCRIPT = """
import jobs, edgewise as ew
if __name__ == "__main__":
    graph, objective = jobs.make(jobs.slow_losses)
    with ew.Study(graph, objective, executor=ew.Ray(workers=1)) as study:
        study.run(60, jobs.BUDGET, progress=lambda p: print("going", flush=True))
"""


@pytest.mark.parametrize(
    "stop", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_stopped_driver_leaves_no_processes(stop: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, and even a driver that is killed: Ray and its workers go with it."""
    pytest.importorskip("ray")
    mark = f"EDGEWISE_TEST={tmp_path}"
    script = tmp_path / "driver.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"EDGEWISE_TEST": str(tmp_path), "PYTHONPATH": f"{HERE}:{HERE.parent / 'src'}"}
    driver = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    assert driver.stdout.readline() == "going\n"
    assert len(marked(mark)) > 3
    driver.send_signal(stop)
    assert driver.wait(60) != 0
    assert gone(marked(mark))


def marked(mark: str) -> list[int]:
    """Processes, the zombies aside, whose environment has a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_workers_that_cannot_work_end_the_study_with_the_reason(
    workers, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewise.evaluation.ray import executor as cluster

    for hand in list(workers.hands):  # they hold all CPUs
        workers._drop(hand)
    monkeypatch.setattr(cluster, "pack", lambda *_: b"nonsense")
    executor = ew.Ray(workers=1)(*job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ExecutorError, match="A worker is of no use"):
            list(executor.evaluate([job[0].empty]))
    executor.close()
