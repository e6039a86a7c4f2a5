"""Static figures for papers and slides, through matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bench import Row
from .errors import EdgewiseError


def comparison(rows: Sequence[Row]) -> Any:
    """A matplotlib figure: best search loss against evaluations, a line a method and seed.

    Methods that measure a single mask within the budget are points.

    Raises:
        EdgewiseError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EdgewiseError("Plots need matplotlib: pip install 'edgewise[report]'.") from error
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row.method for row in rows))
    for row in rows:
        place = names.index(row.method)
        known = [(n, value) for n, value in enumerate(row.history, 1) if value is not None]
        style: dict[str, Any] = {"color": f"C{place % 10}", "zorder": len(names) - place}
        style["label"] = row.method if row.seed == _first_seed(rows, row.method) else None
        counts, values = zip(*known, strict=True)
        if len(set(values)) == 1:
            axes.plot(counts[:1], values[:1], "o", **style)
        else:
            axes.step(counts, values, where="post", **style)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("lowest search loss within the budget")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def save(figure: Any, path: Path) -> Path:
    """Write a figure as .png, .svg or .pdf, by the ending."""
    figure.savefig(path, dpi=150)
    return path


def _first_seed(rows: Sequence[Row], method: str) -> int:
    return next(row.seed for row in rows if row.method == method)
