"""`edgewise study …` on small databases: what it shows, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgewise.cli import app
from edgewise.evaluation.records import Evaluation
from edgewise.study.storage.storage import Storage
from identities import belonging

IDENTITY = belonging()
BITS = 54


def bits(*removed: int) -> str:
    return "".join("1" if i in removed else "0" for i in range(BITS))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    storage = Storage(f"sqlite:///{path}", "resnet", IDENTITY)
    storage.run({"budget": {"macs": 0.7}, "seed": 3, "surrogate": "auto"})
    each = np.array([0.25, 0.75])
    storage.add(Evaluation(bits(), "search", 0.1, {}, 2, origin="unpruned"))
    storage.add(Evaluation(bits(0), "search", 0.05, {}, 2, origin="leave-one-out"))
    storage.add(Evaluation(bits(0, 1), "search", 0.5, {}, 2, origin="sampled"), each)
    storage.add(Evaluation(bits(2, 3), "search", 0.75, {}, 2, origin="proposed"))
    storage.add(Evaluation(bits(4), "search", None, {}, 0, 0.1, "failed", "RuntimeError: [no]"))
    storage.add(Evaluation(bits(5), "search", None, {}, 2, 0.1, "nan", "The loss is nan."))
    Storage(f"sqlite:///{path}", "empty", IDENTITY)
    return path


def call(*words: object, columns: int = 80) -> Any:
    return CliRunner().invoke(app.app, ["study", *map(str, words)], env={"COLUMNS": str(columns)})


def said(result: Any) -> str:
    return " ".join(result.output.split())


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_what_is_shown_fits_and_has_no_control_characters(database: Path, columns: int) -> None:
    for words in (("list", database), ("show", database, "-n", "resnet")):
        result = call(*words, columns=columns)
        assert result.exit_code == 0, result.output
        assert max(map(len, result.stdout.splitlines())) <= columns
        assert "\x1b" not in result.output


def test_list_counts(database: Path) -> None:
    rows = call("list", f"sqlite:///{database}").stdout.splitlines()
    cells = [[c.strip() for c in row.split("│")[1:-1]] for row in rows if row.startswith("│")]
    assert cells == [["resnet", "6", "2", "0.1", "0.5"], ["empty", "0", "0", "–", "–"]]


def test_show_gives_runs_counts_and_the_best_masks(database: Path) -> None:
    text = call("show", database, "--name", "resnet", "--best", 1, columns=200).stdout
    for words in (
        "macs=0.7",
        "search │ failed │     1",
        bits(0, 1),
        "1 × failed: RuntimeError: [no]",
    ):
        assert words in text
    assert bits(2, 3) not in text


def test_studies_as_data(database: Path) -> None:
    study, empty = json.loads(call("list", database, "--json").stdout)["studies"]
    assert empty == {"study": "empty", "evaluations": 0, "failed": 0, "unpruned_loss": None,
                     "best_loss": None}  # fmt: skip
    shown = json.loads(call("show", database, "-n", "resnet", "--best", "2", "--json").stdout)
    assert {key: shown[key] for key in study} == study
    losses = [e["loss"] for e in shown["best"]]
    assert losses == sorted(losses)
    assert len(losses) == 2
    assert losses[0] == study["best_loss"]
    assert shown["runs"][0]["seed"] is not None
    before = json.loads(
        call("prune-failed", database, "-n", "resnet", "--dry-run", "--json").stdout
    )
    assert (sum(before["failed"].values()), before["removed"]) == (study["failed"], 0)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_export(database: Path, tmp_path: Path, ending: str) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / f"out.{ending}"
    result = call("export", database, path, "-n", "resnet", "--losses")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(path)
    frame = getattr(pandas, f"read_{ending}")(path)
    assert list(frame["mask"].astype(str).str.len().unique()) == [BITS] or ending == "csv"
    assert frame["loss"].dropna().tolist() == [0.1, 0.05, 0.5, 0.75]
    assert frame["losses"].notna().tolist() == [False, False, True, False, False, False]


def test_prune_failed_says_how_many_and_keeps_the_rest(database: Path) -> None:
    storage = Storage(f"sqlite:///{database}", "resnet", IDENTITY)
    storage.run({"budget": {"macs": 0.5}, "seed": 0, "surrogate": "auto"})
    storage.add(Evaluation(bits(9), "search", 1.0, {}, 2))
    words = "2 of 7 evaluations of study 'resnet' gave no loss (1 failed, 1 nan)."
    assert words in said(call("prune-failed", database, "-n", "resnet", "--dry-run"))
    assert len(storage.evaluations()) == 7
    result = call("prune-failed", database, "-n", "resnet")
    assert words in said(result)
    assert "Removed 2" in said(result)
    left = storage.evaluations()
    assert [e.loss for e in left] == [0.1, 0.05, 0.5, 0.75, 1.0]
    before = [run.before for run in storage.runs()]
    assert before == [0, 4], "what came before a run still does, and nothing else"
    assert "0 of 5" in said(call("prune-failed", database, "-n", "resnet"))


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for words in (("list",), ("show",), ("export", tmp_path / "a.csv"), ("prune-failed",)):
        result = call(words[0], tmp_path / "deep" / "none.db", *words[1:])
        assert result.exit_code == 1
        assert "There is no study database" in said(result)
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"")
    result = call("list", path)
    assert (result.exit_code, "There is no study in it" in said(result)) == (1, True)
    assert path.read_bytes() == b""


def test_studies_are_named_where_one_must_be_chosen(database: Path) -> None:
    result = call("show", database)
    assert result.exit_code == 2
    assert "Say which study with --name" in said(result)
    assert "'resnet', 'empty'" in said(result)
    result = call("show", database, "-n", "resnett")
    assert result.exit_code == 1
    assert "has no study 'resnett'. Its studies: 'resnet', 'empty'" in said(result)
