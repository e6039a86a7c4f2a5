"""Databases of older schemas are brought up to date, and mean what they meant."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edgewise.errors import StorageError
from edgewise.evaluation.records import Evaluation
from edgewise.study.storage.storage import Run, Storage
from identities import belonging

IDENTITY = belonging()
SCHEMA_1 = """
CREATE TABLE edgewise_schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE studies (
    id INTEGER NOT NULL, name VARCHAR(200) NOT NULL, identity TEXT NOT NULL,
    PRIMARY KEY (id), UNIQUE (name));
CREATE TABLE runs (
    id INTEGER NOT NULL, study INTEGER NOT NULL, settings TEXT NOT NULL, before INTEGER NOT NULL,
    PRIMARY KEY (id), FOREIGN KEY(study) REFERENCES studies (id));
CREATE TABLE evaluations (
    id INTEGER NOT NULL, study INTEGER NOT NULL, mask TEXT NOT NULL, split VARCHAR(20) NOT NULL,
    loss DOUBLE, metrics TEXT NOT NULL, samples INTEGER NOT NULL, seconds DOUBLE NOT NULL,
    status VARCHAR(20) NOT NULL, error TEXT, origin VARCHAR(40) NOT NULL,
    predicted DOUBLE, deviation DOUBLE,
    PRIMARY KEY (id), CONSTRAINT one_result_per_mask UNIQUE (study, mask, split, samples),
    FOREIGN KEY(study) REFERENCES studies (id));
CREATE INDEX ix_evaluations_study ON evaluations (study);
INSERT INTO edgewise_schema VALUES (1);
INSERT INTO studies VALUES (1, 's', '{"graph": "structure", "objective": "o", "weights": "w"}');
INSERT INTO runs VALUES
    (1, 1, '{"seed": 0}', 0), (2, 1, '{"seed": 0}', 1), (3, 1, '{"seed": 1}', 2);
INSERT INTO evaluations VALUES
    (1, 1, '00', 'search', 0.5, '{"accuracy": 0.25}', 7, 0.1, 'ok', NULL, 'unpruned', NULL, NULL),
    (2, 1, '01', 'search', NULL, '{}', 0, 0.1, 'failed', 'no', 'sampled', 0.1, 0.2);
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "study.db"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1)
    connection.close()
    return path


def test_a_database_of_schema_1_goes_on(old: Path) -> None:
    storage = Storage(f"sqlite:///{old}", "s", IDENTITY)
    first, second = storage.evaluations()
    assert first == Evaluation(
        "00", "search", 0.5, {"accuracy": 0.25}, 7, 0.1, origin="unpruned", number=0
    )
    assert (second.status, second.error, second.deviation) == ("failed", "no", 0.2)
    assert storage.runs() == [Run(1, {"seed": 0}, 0), Run(3, {"seed": 1}, 2)]
    assert storage.run({"seed": 0}).id == 1
    assert storage.losses("00", "search") is None
    storage.add(Evaluation("11", "search", 0.5, {}, 2), np.array([0.25, 0.75]))
    again = Storage(f"sqlite:///{old}", "s", IDENTITY)
    assert len(again.evaluations()) == 3
    assert again.losses("11", "search").tolist() == [0.25, 0.75]


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("CREATE INDEX one_run_per_settings ON evaluations (id)")  # in the way
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match="cannot be used"):
        Storage(f"sqlite:///{old}", "s", IDENTITY)
    connection = sqlite3.connect(old)
    assert connection.execute("SELECT version FROM edgewise_schema").fetchall() == [(1,)]
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)


def test_a_newer_schema_is_refused_and_left_alone(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("UPDATE edgewise_schema SET version = 99")
    connection.commit()
    with pytest.raises(StorageError, match=r"study\.db.*schema 99.*Upgrade edgewise"):
        Storage(f"sqlite:///{old}", "s", IDENTITY)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert ("losses",) not in tables
