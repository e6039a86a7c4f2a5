"""Evaluations as a pandas DataFrame."""

from collections.abc import Iterable
from typing import Any

from ..errors import EdgewiseError
from ..evaluation.records import Evaluation


def frame(evaluations: Iterable[Evaluation]) -> Any:
    """One row an evaluation, one column a metric; see `Study.frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise EdgewiseError(
            "study.frame() needs pandas: pip install 'edgewise[data]'. study.evaluations has "
            "the same records without it."
        ) from error

    rows = []
    for e in evaluations:
        row = {k: getattr(e, k) for k in e.__slots__ if k not in ("metrics", "noise", "each")}
        rows.append(row | {f"metric_{k}": v for k, v in e.metrics.items()})
    return pd.DataFrame(rows)
