"""The same storage on a real PostgreSQL server, also one that crashes in the middle."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

import jobs
from edgewise.errors import StorageError
from edgewise.evaluation.records import Evaluation
from edgewise.study.storage import database
from edgewise.study.storage.storage import Storage
from identities import belonging
from postgres import Server

pytestmark = pytest.mark.postgres
IDENTITY = belonging()
RECORD = Evaluation("0101", "search", 0.1 + 0.2, {"accuracy": 1 / 3}, 2, 0.5, origin="sampled")


@pytest.fixture
def url(server: Server) -> str:
    """A new database on the server."""
    name = f"d{uuid.uuid4().hex}"
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.url.removesuffix("postgres") + name


def test_what_is_kept_comes_back(url: str) -> None:
    storage = Storage(url, "s", IDENTITY)
    storage.add(RECORD, np.array([0.25, 0.75]))
    storage.add(Evaluation("1111", "search", None, {}, 0, 0.1, "failed", "a NUL \0, \udc80"))
    assert storage.run({"seed": 0}).before == 2
    again = Storage(url.replace("+psycopg", ""), "s", IDENTITY)
    first, second = again.evaluations()
    assert (first.loss, first.metrics) == (RECORD.loss, RECORD.metrics)
    assert second.error == "a NUL \\x00, \\udc80"
    assert again.losses("0101", "search").tolist() == [0.25, 0.75]
    again.add(Evaluation("0101", "search", 9.0, {}, 2))
    again.add(Evaluation("1111", "search", 1.0, {}, 2))
    assert [e.loss for e in storage.evaluations()] == [RECORD.loss, 1.0]
    assert storage.share(["0101", "0000"], "search", 2, set(), 9)[0] == ["0000"]
    assert again.share(["0000"], "search", 2, set(), 9) == ([], [])
    part = replace(RECORD, split="search:01100000", samples=1)
    assert again.share(["0000", "0101"], part.split, 1, set(), 9)[0] == ["0000", "0101"]
    again.add(part, np.array([0.5]))
    assert [e.split for e in storage.share(["0101"], part.split, 1, set(), 9)[1]] == [part.split]
    assert storage.losses("0101", part.split).tolist() == [0.5]
    with pytest.raises(StorageError, match="made with another graph"):
        Storage(url, "s", belonging(graph="x"))


def test_no_server_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.monotonic()
    with pytest.raises(StorageError, match="Check that the server runs and lets you in") as caught:
        Storage("postgresql+psycopg://me:secret@127.0.0.1:9/x", "s", IDENTITY)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - begin < 5


def test_a_server_that_stays_away_ends_the_wait(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 1.0)
    storage = Storage(url, "s", IDENTITY)
    server.kill()
    try:
        with pytest.raises(StorageError, match="Check that the server runs"):
            storage.add(RECORD)
        assert "is away" in caplog.text
    finally:
        server.start()
    storage.add(RECORD)
    assert [e.loss for e in storage.evaluations()] == [RECORD.loss]


def test_a_server_that_starts_up_is_waited_for(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when a study is opened: it could not answer yet, but it is there."""
    Storage(url, "s", IDENTITY).add(RECORD)
    connect, refused = psycopg.connect, ["the database system is starting up"]

    def connecting(*args: object, **options: object) -> object:
        if refused:
            raise psycopg.OperationalError(f"connection failed: FATAL:  {refused.pop()}")
        return connect(*args, **options)

    monkeypatch.setattr(psycopg, "connect", connecting)
    assert [e.loss for e in Storage(url, "s", IDENTITY).evaluations()] == [RECORD.loss]
    assert not refused
    assert "starting up" in caplog.text


def test_killed_and_restarted_in_the_middle(
    server: Server, url: str, tmp_path: Path, reference
) -> None:
    """Two processes at once meanwhile: nothing is lost, nothing done twice."""
    diary = tmp_path / "diary"
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    workers = [jobs.start(url, out, diary, log) for out, log in zip(outs, logs, strict=True)]
    for count in (5, 20):
        wait_for(lambda count=count: jobs.joined(diary) == 2 and lines(diary) >= count, workers)
        server.kill()
        time.sleep(0.5)
        server.start()
    for worker in workers:
        worker.join(240)
    said = "".join(log.read_text() for log in logs)
    assert [worker.exitcode for worker in workers] == [0, 0], said
    assert "is away" in said
    assert "is back" in said
    for out in outs:
        plan = json.loads(out.read_text())
        del plan["tensors"]
        assert plan == json.loads(json.dumps(reference.to_dict()))
    assert set(jobs.times_measured(diary).values()) == {1}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for(condition: Callable[[], bool], workers: list[BaseProcess]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and any(worker.is_alive() for worker in workers):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("What was waited for did not come in two minutes.")
