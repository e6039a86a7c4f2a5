"""Law 7: whatever happens to a study, no finished evaluation is lost or done again, and it ends
with the plan of one to which nothing happened."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import time
import zlib
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewise as ew
import jobs
from edgewise.errors import StorageError


def plan_in(path: Path) -> dict:
    """A saved plan, without the name of the file with its tensors."""
    data = json.loads(path.read_text())
    del data["tensors"]
    return data


def plain(plan: ew.Plan) -> dict:
    return json.loads(json.dumps(plan.to_dict()))


def stored(database: Path) -> list[tuple]:
    """What is in the database, in order, without asking the code under test."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            rows = connection.execute("SELECT id, split, mask, loss FROM evaluations ORDER BY id")
            return rows.fetchall()
    except sqlite3.Error:
        return []


@pytest.mark.parametrize(
    ("kills", "seed"), [(1, 0), pytest.param(20, 1, marks=pytest.mark.slow)], ids=["1", "20"]
)
def test_killed_and_resumed_ends_with_the_same_plan(
    tmp_path: Path, kills: int, seed: int, reference: ew.Plan
) -> None:
    """SIGKILL at random instants; the last run comes through."""
    database, out, diary = (tmp_path / name for name in ("study.db", "plan.json", "diary"))
    job = (f"sqlite:///{database}", out, diary)
    rng, before = random.Random(seed), []
    for _ in range(kills):
        process = jobs.start(*job)
        wait_for_rows(database, len(before) + rng.randint(0, 40 // kills), process)
        time.sleep(rng.random() * 0.1)
        assert process.is_alive(), "it ended before it was killed"
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        now = stored(database)
        assert now[: len(before)] == before, "a finished evaluation was lost"
        before = now
    last = jobs.start(*job)
    last.join(120)
    assert last.exitcode == 0
    assert plan_in(out) == plain(reference)
    assert jobs.measured_after_kept(diary) == []
    assert max(jobs.times_measured(diary).values()) <= 2  # killed between measuring and keeping


def wait_for_rows(database: Path, count: int, process: BaseProcess) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.is_alive() and len(stored(database)) < count:
        time.sleep(0.01)


class _Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def with_widths() -> ew.Plan:
    """The plan of a study of branches and widths to which nothing happens."""
    return widths_plan(None)


def widths_plan(storage: str | None, progress: Any = None) -> ew.Plan:
    graph, objective = jobs.make(kinds=("edge", "hidden", "channels"))
    study = ew.Study(graph, objective, storage, "job")
    study.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3, progress=progress)
    return study.plan(finalists=5)


@pytest.mark.parametrize("after", [1, 33])
def test_a_study_of_widths_resumes_to_the_same_plan(
    tmp_path: Path, with_widths: ew.Plan, after: int
) -> None:
    def stop(told: Any) -> None:
        if told.done == after:
            raise _Stop

    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(_Stop):
        widths_plan(url, stop)
    assert len(stored(tmp_path / "study.db")) == after
    assert plain(widths_plan(url)) == plain(with_widths)
    assert any(bit for bit in with_widths.bits)


def test_two_processes_at_once_share_the_work(tmp_path: Path, reference: ew.Plan) -> None:
    database, diary = tmp_path / "study.db", tmp_path / "diary"
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    workers = [jobs.start(f"sqlite:///{database}", out, diary) for out in outs]
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert plan_in(outs[0]) == plan_in(outs[1]) == plain(reference)
    assert set(jobs.times_measured(diary).values()) == {1}


def fails_for(share: int, outputs) -> bool:
    """Whether a mask fails on the search split, for one batch of 16 in `share`: by its outputs."""
    total = round(float(outputs.double().abs().sum()), 2)
    return len(outputs) == 16 and zlib.crc32(str(total).encode()) % share == 1


def moody(fault: str, share: int):
    """A loss and a metric of which one fails for one mask in `share`."""

    def loss(outputs, targets):
        losses = jobs.losses(outputs, targets)
        if fault == "nan" and fails_for(share, outputs):
            return losses * float("nan")
        if fault == "out of memory" and fails_for(share, outputs):
            raise MemoryError("not enough memory: you tried to allocate 10 TiB")
        return losses

    def metric(outputs, targets):
        if fault == "failed" and fails_for(share, outputs):
            raise RuntimeError("a metric that does not like this mask")
        return jobs.accuracy(outputs, targets)

    return {"loss": loss, "metric": metric}


@pytest.mark.parametrize("fault", ["failed", "nan", "out of memory"])
def test_masks_that_fail_do_not_hurt_the_others(tmp_path: Path, fault: str) -> None:
    """One batch in forty fails, in 60 masks of two batches each."""
    study = ew.Study(*jobs.make(**moody(fault, 40)), f"sqlite:///{tmp_path / 'study.db'}")
    masks = ew.sample_masks(study.graph, 60, removed=3, rng=np.random.default_rng(0))
    found = study.evaluate(masks)
    states = [e.status for e in found]
    assert 1 <= states.count(fault) <= 10
    assert states.count("ok") == len(masks) - states.count(fault)
    assert [e.mask for e in found] == [str(mask) for mask in masks]
    whole = ew.Study(*jobs.make()).evaluate(masks)
    assert [e.loss for e in found if e.ok] == [
        w.loss for e, w in zip(found, whole, strict=True) if e.ok
    ]
    reasons = {"failed": "RuntimeError: a metric that does", "nan": "The loss is nan"}
    assert all(
        reasons.get(fault, "not enough memory") in e.error for e in found if e.status == fault
    )
    assert {e.mask: e.status for e in study.evaluations} == {e.mask: e.status for e in found}


@pytest.mark.parametrize("fault", ["nan", "out of memory"])  # what "failed" is, too
def test_a_study_with_failures_resumes_to_the_same_plan(tmp_path: Path, fault: str) -> None:
    def make(storage: str | None) -> ew.Study:
        return ew.Study(*jobs.make(**moody(fault, 20)), storage, "job")

    def finish(study: ew.Study) -> dict:
        study.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3)
        return plain(study.plan(finalists=5))

    def stop(now) -> None:
        if now.done == 20:
            raise KeyboardInterrupt

    whole = make(None)
    expected = finish(whole)
    assert fault in [e.status for e in whole.evaluations]
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = make(url)
    with pytest.raises(KeyboardInterrupt):
        first.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3, progress=stop)
    kept = [e.mask for e in first.evaluations]
    resumed = make(url)
    assert finish(resumed) == expected
    assert [e.mask for e in resumed.evaluations][: len(kept)] == kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"A small disk cannot be mounted: {error}")
    if made.returncode:
        pytest.skip(f"A small disk cannot be mounted: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_a_full_disk(small_disk: Path, reference: ew.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.study.storage.database.PATIENCE", 1.0)  # it stays full
    monkeypatch.setattr("edgewise.study.storage.claims.BEAT", 0.2)
    monkeypatch.setattr("edgewise.study.storage.claims.LEASE", 1.0)  # of what could not be let go
    database, ballast = small_disk / "study.db", []

    def fill_up(now) -> None:
        if now.done == 12:
            ballast.append(fill(small_disk))

    study = ew.Study(*jobs.make(), f"sqlite:///{database}", "job")
    with pytest.raises(StorageError, match=r"The disk is full\. Finished evaluations are kept"):
        study.run(jobs.EVALUATIONS, jobs.BUDGET, seed=3, progress=fill_up)
    kept = stored(database)
    assert len(kept) >= 12
    with pytest.raises(StorageError, match="disk"):
        jobs.plan_of(f"sqlite:///{database}")
    assert stored(database) == kept
    ballast[0].unlink()
    assert plain(jobs.plan_of(f"sqlite:///{database}")) == plain(reference)
    assert stored(database)[: len(kept)] == kept


def test_a_read_only_database(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    first = ew.Study(*jobs.make(), f"sqlite:///{path}")
    first.evaluate([first.graph.empty])
    first.storage.database.engine.dispose()
    kept = stored(path)
    study = ew.Study(*jobs.make(), f"sqlite:///file:{path}?mode=ro&uri=true")
    assert [e.mask for e in study.evaluate([study.graph.empty])] == [str(study.graph.empty)]
    with pytest.raises(StorageError, match="Check that the file and its folder can be written to"):
        study.evaluate([study.graph.mask([0])])
    assert stored(path) == kept


def test_a_read_only_disk(small_disk: Path) -> None:
    path = small_disk / "study.db"
    first = ew.Study(*jobs.make(), f"sqlite:///{path}")
    first.evaluate([first.graph.empty])
    first.storage.database.engine.dispose()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="Check that the file and its folder can be written to"):
        ew.Study(*jobs.make(), f"sqlite:///{path}").evaluate([first.graph.mask([0])])


def test_the_clock_may_go_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: ew.Plan
) -> None:
    rng = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: 1e9 + rng.uniform(-1e8, 1e8))
    url, told = f"sqlite:///{tmp_path / 'study.db'}", []
    study = ew.Study(*jobs.make(), url, "job")
    study.run(20, jobs.BUDGET, seed=3, progress=told.append)
    assert plain(jobs.plan_of(url)) == plain(reference)
    assert all(p.seconds >= 0 and (p.seconds_left or 0) >= 0 for p in told)
    assert [e.mask for e in study.evaluations if e.seconds < 0] == []
