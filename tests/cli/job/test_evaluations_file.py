"""Evaluations as tables: what is in which column, and which endings there are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from edgewise.cli.job.evaluations_file import write_evaluations
from edgewise.errors import ConfigError
from edgewise.evaluation.records import Evaluation

FAILED = Evaluation("01", "search", None, status="failed", error="odd, very")
RECORDS = [Evaluation("00", "search", 0.5, {"accuracy": 0.25}, 4), FAILED]
EACH = np.array([0.25, 0.75], np.float32)


def losses(record: Evaluation) -> np.ndarray | None:
    return EACH if record.ok else None


def test_evaluations_are_written_one_a_row(tmp_path: Path) -> None:
    path = write_evaluations(tmp_path / "e.csv", RECORDS, losses)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == ["00", "01"]
    assert (rows[0]["loss"], rows[0]["accuracy"]) == ("0.5", "0.25")
    assert (rows[1]["loss"], rows[1]["accuracy"], rows[1]["error"]) == ("", "", "odd, very")
    assert (json.loads(rows[0]["losses"]), rows[1]["losses"]) == ([0.25, 0.75], "")


@pytest.mark.parametrize("records", [RECORDS, []], ids=["some", "none"])
def test_parquet_keeps_types(tmp_path: Path, records: list[Evaluation]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = write_evaluations(tmp_path / "e.parquet", records, losses)
    table = parquet.read_table(path)
    assert str(table.schema.field("loss").type) == "double"
    assert str(table.schema.field("losses").type).startswith("list<")
    if records:
        assert table.column("losses").to_pylist() == [[0.25, 0.75], None]
        assert table.column("loss").to_pylist() == [0.5, None]


def test_a_metric_never_hides_a_column(tmp_path: Path) -> None:
    record = Evaluation("00", "search", 0.5, {"seconds": 9.0}, seconds=1.0)
    path = write_evaluations(tmp_path / "e.csv", [record])
    row = next(csv.DictReader(path.open()))
    assert (row["seconds"], row["metric_seconds"]) == ("1.0", "9.0")


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"as \.csv or \.parquet, not as 'e\.xlsx'"):
        write_evaluations(tmp_path / "e.xlsx", RECORDS)
    assert list(tmp_path.iterdir()) == []
