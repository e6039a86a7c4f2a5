"""Evaluations survive, and stores of something else are refused."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from edgewise.errors import StorageError
from edgewise.evaluation.records import Evaluation
from edgewise.study.storage.storage import Storage
from edgewise.values.identity import Identity
from identities import belonging

IDENTITY = belonging()
RECORD = Evaluation("0101", "search", 0.1 + 0.2, {"accuracy": 1 / 3}, 7, 0.5, origin="sampled")


def test_round_trip(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'er' / 'study.db'}"
    failed = Evaluation("1111", "search", None, {}, 0, 0.1, "failed", "ValueError: no")
    first = Storage(url, "s", IDENTITY)
    first.add(RECORD)
    first.add(failed)
    found = Storage(url, "s", IDENTITY).evaluations()
    assert [e.number for e in found] == [0, 1]
    assert found[0].loss == RECORD.loss
    assert found[0].metrics == RECORD.metrics
    assert found[1].error == failed.error
    assert Storage(url, "another", IDENTITY).evaluations() == []


def test_one_result_a_mask_and_split(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, two = Storage(url, "s", IDENTITY), Storage(url, "s", IDENTITY)
    one.add(RECORD)
    two.add(Evaluation("0101", "search", 9.0, {}, 7))
    assert [e.loss for e in one.evaluations()] == [RECORD.loss]


def test_runs_remember_what_was_before() -> None:
    storage = Storage(None, "s", IDENTITY)
    assert storage.run({"seed": 0}).before == 0
    storage.add(RECORD)
    assert storage.run({"seed": 0}).before == 0
    assert storage.run({"seed": 1}).before == 1
    assert [r.settings for r in storage.runs()] == [{"seed": 0}, {"seed": 1}]


@pytest.mark.parametrize("what", ["graph", "weights", "objective"])
def test_a_study_of_something_else_is_refused(tmp_path: Path, what: str) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    Storage(url, "s", IDENTITY).add(RECORD)
    with pytest.raises(StorageError, match=f"made with (another|other) {what}") as refusal:
        Storage(url, "s", belonging(**{what: "different"}))
    assert f"({what} was {what[0]} and is different)" in str(refusal.value)
    assert len(Storage(url, "s", IDENTITY).evaluations()) == 1


def test_data_in_another_order_are_explained(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    parts = {"objective": ("search data: one", "loss: code")}
    Storage(url, "s", Identity.of("structure", parts)).add(RECORD)
    with pytest.raises(StorageError, match="DataLoader that shuffles"):
        Storage(url, "s", Identity.of("structure", {"objective": ("search data: two",)}))


def test_what_a_study_belongs_to_can_be_damaged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = Storage(url, "s", IDENTITY)
    for text in ("{", "[]", "{}", '{"digests": {}, "lines": []}'):
        with storage.database.engine.begin() as connection:
            connection.execute(sa.text("update studies set identity = :text"), {"text": text})
        with pytest.raises(StorageError, match="what it belongs to cannot be read"):
            Storage(url, "s", IDENTITY)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = Storage(url, "s", IDENTITY)
    with storage.database.engine.begin() as connection:
        connection.execute(sa.text("insert into edgewise_schema values (99)"))
    with pytest.raises(StorageError, match="schema 99"):
        Storage(url, "s", IDENTITY)


def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(b"this is no database, but it may be precious" * 50)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="damaged or is no database"):
        Storage(f"sqlite:///{path}", "s", IDENTITY)
    assert path.read_bytes() == before


def test_bad_places_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match="folder of the study database cannot be made"):
        Storage(f"sqlite:///{file / 'study.db'}", "s", IDENTITY)
    with pytest.raises(StorageError, match="is no database that can be opened"):
        Storage("nonsense", "s", IDENTITY)
    with pytest.raises(StorageError, match=r"cannot be used.*Check that"):
        Storage(f"sqlite:///{tmp_path}", "s", IDENTITY)
