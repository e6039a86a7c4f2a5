"""Charts as static figures for papers and slides, through matplotlib."""

from pathlib import Path
from typing import Any

from ...errors import EdgewiseError
from ...values.files import write_atomically
from .chart import Chart, Heat, Series
from .plotly import COLOURS

MARKERS = {
    "dot": "o", "ring": "o", "diamond": "D", "triangle": "^", "square": "s", "star": "*",
    "cross": "x",
}  # fmt: skip
DASHES = {"solid": "-", "steps": "-", "dotted": ":", "dashed": "--"}


def static(chart: Chart) -> Any:
    """A matplotlib figure of a chart.

    Raises:
        EdgewiseError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ImportError as error:
        raise EdgewiseError("Plots need matplotlib: pip install 'edgewise[report]'.") from error
    size = (7.2, 6.0) if chart.heat else (4.8, 5.2) if chart.square else (6.4, 4.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    if chart.heat:
        _heat(figure, axes, chart.heat)
        return figure
    for series in chart.series:
        _series(axes, series)
    for axis, name in ((chart.x, "x"), (chart.y, "y")):
        if axis is not None:
            scale = "log" if axis.log else "linear"
            axes.set(**{f"{name}label": axis.title, f"{name}scale": scale})
            if axis.ticks == "prefixed":
                getattr(axes, f"{name}axis").set_major_formatter(EngFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    if any(series.listed for series in chart.series):
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize="small")
    return figure


def save(figure: Any, path: Path) -> Path:
    """Write a figure as .png, .svg or .pdf, by the ending."""
    kind = path.suffix.removeprefix(".") or None
    write_atomically(path, lambda to: figure.savefig(to, dpi=150, format=kind))
    return path


def _series(axes: Any, series: Series) -> None:
    colour = COLOURS[series.role]
    style: dict[str, Any] = {"color": colour, "linewidth": 1.4, "markersize": 5}
    style["marker"] = MARKERS[series.form] if series.form else ""
    style["linestyle"] = DASHES[series.stroke] if series.stroke else ""
    style["label"] = _literal(series.name) if series.listed else None
    if series.stroke == "steps":
        style["drawstyle"] = "steps-post"
    if series.form == "ring":
        style["markerfacecolor"] = "none"
    if any(series.spread):
        spread = [value or 0.0 for value in series.spread]
        axes.errorbar(series.xs, series.ys, xerr=spread, elinewidth=0.6, **style)
    else:
        axes.plot(series.xs, series.ys, **style)


def _heat(figure: Any, axes: Any, heat: Heat) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    stops = [COLOURS[name] for name in ("blue", "paper", "red")]
    signed = LinearSegmentedColormap.from_list("signed", stops)
    colours = signed.with_extremes(bad=COLOURS["unknown"])
    values = np.array([[np.nan if v is None else v for v in row] for row in heat.values])
    image = axes.imshow(np.ma.masked_invalid(values), colours, vmin=-heat.limit, vmax=heat.limit)
    places, names = range(len(heat.labels)), list(map(_literal, heat.labels))
    axes.set_xticks(places, names, rotation=60, ha="right", fontsize=6)
    axes.set_yticks(places, names, fontsize=6)
    figure.colorbar(image, label=_literal(heat.title), shrink=0.7)


def _literal(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
