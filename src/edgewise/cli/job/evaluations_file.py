"""Evaluations as a table for other programs: CSV or Parquet, by the file's ending."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import ConfigError
from ...evaluation.records import Evaluation
from ...values.files import write_atomically

Losses = Callable[[Evaluation], NDArray[Any] | None]
_PLAIN = (
    "number", "mask", "split", "origin", "status", "loss", "samples", "seconds",
    "predicted", "deviation", "error",
)  # fmt: skip


def write_evaluations(
    path: Path, evaluations: Iterable[Evaluation], losses: Losses | None = None
) -> Path:
    """All evaluations, one row each, one column a metric.

    Args:
        path: ends in .csv or .parquet.
        evaluations: what to write.
        losses: gives the loss of every example [n] of an evaluation, for a column `losses`: a list
            in Parquet, a JSON list in CSV.

    Returns:
        The path.

    Raises:
        ConfigError: another ending, or Parquet without pyarrow.
        OSError: the file cannot be written.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix.lower() not in writers:
        raise ConfigError(f"Evaluations are written as .csv or .parquet, not as {path.name!r}.")
    columns = _columns(list(evaluations), losses)
    write_atomically(path, lambda to: writers[path.suffix.lower()](to, columns))
    return path


def _columns(records: list[Evaluation], losses: Losses | None) -> dict[str, list[Any]]:
    columns = {name: [getattr(record, name) for record in records] for name in _PLAIN}
    for name in sorted({name for record in records for name in record.metrics}):
        taken = name in columns or name == "losses"
        values = [record.metrics.get(name) for record in records]
        columns[f"metric_{name}" if taken else name] = values
    if losses is not None:
        each = map(losses, records)
        columns["losses"] = [None if values is None else values.tolist() for values in each]
    return columns


def _write_csv(path: Path, columns: dict[str, list[Any]]) -> None:
    if "losses" in columns:
        texts = [None if v is None else json.dumps(v) for v in columns["losses"]]
        columns = columns | {"losses": texts}
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        csv.writer(file).writerows([map(_as_text, row) for row in rows])


def _as_text(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, marked as text; numbers as they are."""
    risky = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if risky else cell


def _write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'edgewise[data]'.") from error
    types = {
        "number": pa.int64(), "samples": pa.int64(), "losses": pa.list_(pa.float32()),
        **dict.fromkeys(("mask", "split", "origin", "status", "error"), pa.string()),
    }  # fmt: skip
    arrays = {k: pa.array(v, type=types.get(k, pa.float64())) for k, v in columns.items()}
    parquet.write_table(pa.table(arrays), path)
