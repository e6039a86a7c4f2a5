"""Databases of strangers and of other versions, and threads that share one in memory."""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import edgewise as ew
import jobs
from edgewise.cli.app import app
from edgewise.errors import StorageError
from edgewise.evaluation.records import Evaluation
from edgewise.study.storage.database import Database
from edgewise.study.storage.schema import EVALUATIONS
from edgewise.study.storage.storage import Storage, study_names
from identities import belonging

COLUMNS = {
    "mask": ["'abc'", "x'ff00'", "-1", "''", "1", "'0110 '", "'011'", "char(0)"],
    "split": ["'abc'", "x'ff00'", "-1", "''"],
    "loss": ["'abc'", "x'ff00'", "NULL", "1e999", "-1e999", "'nan'"],
    "metrics": [
        "'abc'", "x'ff00'", "''", "-1", "'[]'", "'{\"a\": \"b\"}'", "'{\"a\": 1, \"a\": 2}'",
        "replace(hex(zeroblob(60000)), '00', '[')", "'{\"a\": true}'", "'null'",
        "'{\"a\": ' || replace(hex(zeroblob(90)), '00', '[') || '1' || replace(hex(zeroblob(90)),"
        " '00', ']') || '}'",
    ],
    "samples": ["'abc'", "x'ff00'", "-1", "1.5"],
    "seconds": ["'abc'", "x'ff00'", "-1"],
    "status": ["'abc'", "x'ff00'", "''", "'failed'", "1"],
    "error": ["x'ff00'"],
    "origin": ["x'ff00'"],
    "predicted": ["'abc'", "x'ff00'"],
    "deviation": ["'abc'", "x'ff00'"],
}  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = Storage(url, "job", belonging())
    storage.run({"budget": {"macs": 0.7}, "seed": 0, "surrogate": "auto"})
    for mask in ("0000", "0110"):
        storage.add(Evaluation(mask, "search", 1.0, {"a": 0.5}, 3, 0.1), np.ones(3))
    return url


def change(url: str, statement: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute(statement)
    connection.close()


def refused(look: Callable[[], Any]) -> None:
    with pytest.raises(StorageError, match=r"study\.db"):
        look()


@pytest.mark.parametrize(
    ("column", "value"), [(name, value) for name, values in COLUMNS.items() for value in values]
)
def test_a_row_that_is_no_evaluation_is_refused(url: str, column: str, value: str) -> None:
    change(url, f"UPDATE evaluations SET {column} = {value} WHERE id = 2")
    refused(Storage(url, "job", None).evaluations)
    result = CliRunner().invoke(app, ["study", "list", url])
    assert result.exit_code == 1
    assert "Error: " in result.output


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("settings", "'abc'"), ("settings", "x'ff'"), ("settings", "'[]'"), ("settings", "'{}}'"),
        ("settings", "'{\"budget\": 3}'"), ("settings", "'{\"seed\": -1}'"), ("before", "-1"),
        ("before", "'abc'"),
    ],
)  # fmt: skip
def test_a_run_that_is_none_is_refused(url: str, column: str, value: str) -> None:
    change(url, f"UPDATE runs SET {column} = {value}")
    refused(Storage(url, "job", None).runs)


@pytest.mark.parametrize("value", ["'abc'", "x'000000'", "7"])
def test_losses_that_are_none_are_refused(url: str, value: str) -> None:
    change(url, f"UPDATE losses SET each = {value}")
    refused(lambda: Storage(url, "job", None).losses("0110", "search"))


@pytest.mark.parametrize("version", ["99", "-1", "0"])
def test_another_schema_is_refused(url: str, version: str) -> None:
    change(url, f"UPDATE edgewise_schema SET version = {version}")
    refused(lambda: Storage(url, "job", None))
    refused(lambda: Storage(url, "job", belonging()))


def test_tables_that_lack_something_are_refused(url: str) -> None:
    change(url, "ALTER TABLE evaluations DROP COLUMN origin")
    refused(Storage(url, "job", None).evaluations)


def test_rubbish_is_refused(tmp_path: Path) -> None:
    for content in (b"rubbish" * 500, b"SQLite format 3\0" + b"\xff" * 4096):
        (tmp_path / "study.db").write_bytes(content)
        refused(lambda: Storage(f"sqlite:///{tmp_path / 'study.db'}", "job", belonging()))


def test_masks_of_another_network_are_refused(url: str) -> None:
    change(url, "UPDATE evaluations SET mask = mask || '0' WHERE id = 2")
    with pytest.raises(StorageError, match="a mask of 5 bits, the first 4"):
        Storage(url, "job", None).evaluations()


def test_a_look_from_another_thread_keeps_a_study_in_memory() -> None:
    study = ew.Study(*jobs.make())
    study.run(6, jobs.BUDGET)
    before, seen = study.evaluations, []
    thread = threading.Thread(target=lambda: seen.extend(study.evaluations))
    thread.start()
    thread.join()
    assert seen == before
    assert study.evaluations == before
    study.run(8, jobs.BUDGET)
    assert study.evaluations[:6] == before


@pytest.mark.parametrize("memory", [True, False])
def test_readers_and_writers_at_once_lose_nothing(memory: bool, tmp_path: Path) -> None:
    storage = Storage(None if memory else f"sqlite:///{tmp_path / 'study.db'}", "job", belonging())
    count, problems, stop = 15, [], threading.Event()

    def write(first: int) -> None:
        for number in range(first, first + count):
            storage.add(Evaluation(f"{number:08b}", "search", float(number)), np.ones(2))

    def read() -> None:
        known = 0
        while not stop.is_set():
            found = storage.evaluations()
            losses = [storage.losses(e.mask, "search") for e in found[-1:]]
            if len(found) < known or any(each is None for each in losses):
                problems.append("something was lost, or seen half")
            known = len(found)
            time.sleep(0.001)  # a lock is not fair, and writers are to get on

    def guarded(work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must hear of it
            problems.append(repr(error))

    readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(3)]
    writers = [threading.Thread(target=guarded, args=(write, n * 100)) for n in range(2)]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not problems
    assert len(storage.evaluations()) == 2 * count


def test_an_interrupt_within_a_transaction_keeps_a_study_in_memory() -> None:
    storage = Storage(None, "job", belonging())
    storage.add(Evaluation("0", "search", 1.0))

    def interrupted(connection: sa.Connection) -> None:
        connection.execute(sa.text("DELETE FROM evaluations"))
        connection.invalidate()  # what SQLAlchemy does with a connection in which one came
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.database.write(interrupted)
    assert [e.mask for e in storage.evaluations()] == ["0"]


def test_two_studies_in_memory_are_two() -> None:
    one, other = Storage(None, "one", belonging()), Storage("sqlite://", "other", belonging())
    assert study_names(one.database) == ["one"]
    assert study_names(other.database) == ["other"]


def test_memory_is_given_back() -> None:
    begin = threading.active_count()
    for _ in range(200):
        Database(None)
    assert threading.active_count() == begin


def test_reading_many_rows_stays_fast() -> None:
    """Checks of rows take microseconds each."""
    storage = Storage(None, "job", belonging())

    def fill(connection: sa.Connection) -> None:
        rows = [
            {**storage._values(Evaluation(f"{n:012b}", "search", 1.0, {"a": 1.0}))}
            for n in range(2000)
        ]
        connection.execute(sa.insert(EVALUATIONS), rows)

    storage.database.write(fill)
    begin = time.perf_counter()
    assert len(storage.evaluations()) == 2000
    assert time.perf_counter() - begin < 1.0
