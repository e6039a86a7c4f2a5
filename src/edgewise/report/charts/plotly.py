"""Charts as plotly figures, for notebooks and for the report."""

from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from math import isnan
from typing import Any

from .chart import Axis, Chart, Heat, Series

COLOURS: Mapping[str, str] = {
    "ink": "#1d2429", "grey": "#7b868d", "blue": "#2f77b3", "orange": "#c46a12",
    "green": "#23805f", "plum": "#9a3f7e", "red": "#b4442a", "teal": "#2b5f75",
    "rule": "#dfe4e7", "paper": "#ffffff", "soft": "#5b6770", "unknown": "#e3e6e8",
}  # fmt: skip
SYMBOLS = {
    "dot": "circle", "ring": "circle-open", "diamond": "diamond", "triangle": "triangle-up",
    "square": "square", "star": "star", "cross": "x-thin",
}  # fmt: skip
DASHES = {"solid": "solid", "steps": "solid", "dotted": "dot", "dashed": "dash"}
TICKS = {"plain": "~g", "whole": "d", "prefixed": "~s"}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
HIDDEN = {"showgrid": False, "zeroline": False, "ticks": ""}


def figure(chart: Chart, colours: Mapping[str, str] = COLOURS) -> Any:
    """A plotly figure of a chart."""
    from plotly.graph_objects import Figure

    drawn = Figure(layout=_layout(chart, colours))
    if chart.heat is not None:
        drawn.add_traces(_heat(chart.heat, colours))
    for series in chart.series:
        drawn.add_scatter(**_series(series, colours))
    return drawn


def script() -> str:
    """plotly's own JavaScript, as the Python package brings it."""
    return files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def _layout(chart: Chart, colours: Mapping[str, str]) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": colours["soft"]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 16, "t": 16, "b": 52},
        "hoverlabel": {
            "bgcolor": colours["ink"],
            "bordercolor": colours["ink"],
            "font": {"color": colours["paper"], "family": FONT, "size": 13},
            "align": "left",
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "closest",
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": colours["grey"],
            "activecolor": colours["ink"],
        },
    }
    if chart.x and chart.y:
        layout |= {"xaxis": _axis(chart.x, colours), "yaxis": _axis(chart.y, colours)}
        if not chart.x.log:
            layout["xaxis"]["range"] = _around(x for series in chart.series for x in series.xs)
    if chart.square:
        layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
        layout["xaxis"]["constrain"] = "domain"
    if chart.heat:
        # by number, since plotly merges rows of the same name
        ticks = list(range(len(chart.heat.labels)))
        names = {"tickvals": ticks, "ticktext": list(map(plain, chart.heat.labels)), **HIDDEN}
        layout["xaxis"] = {**names, "tickangle": -60, "automargin": True}
        layout["yaxis"] = {**names, "autorange": "reversed", "automargin": True}
    return layout


def _axis(axis: Axis, colours: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": {"text": plain(axis.title), "font": {"color": colours["ink"]}, "standoff": 8},
        "type": "log" if axis.log else "linear",
        "gridcolor": colours["rule"],
        "linecolor": colours["grey"],
        "zeroline": False,
        "automargin": True,
        "dtick": "D2" if axis.log else None,
        "tickformat": TICKS[axis.ticks],
    }


def _around(values: Iterable[float]) -> list[float] | None:
    """A range around the only value that there is; plotly's would need too many digits."""
    found = {value for value in values if not isnan(value)}
    if len(found) != 1 or not any(found):
        return None
    (only,) = found
    return sorted((0.9 * only, 1.1 * only))


def _series(series: Series, colours: Mapping[str, str]) -> dict[str, Any]:
    colour = colours[series.role]
    thin = series.form in ("ring", "cross")
    wanted = {"markers": series.form, "lines": series.stroke}
    trace: dict[str, Any] = {
        "x": [None if isnan(x) else x for x in series.xs],
        "y": [None if isnan(y) else y for y in series.ys],
        "name": plain(series.name),
        "mode": "+".join(mode for mode, value in wanted.items() if value),
        "showlegend": series.listed,
        "hoverinfo": "text" if series.texts else "skip",
        "hovertext": list(map(plain, series.texts)),
    }
    if series.form:
        edge = {"width": 1.6 if thin else 0.8, "color": colour if thin else colours["paper"]}
        trace["marker"] = {"symbol": SYMBOLS[series.form], "size": 8, "color": colour, "line": edge}
    if series.stroke:
        shape = "hv" if series.stroke == "steps" else "linear"
        trace["line"] = {"color": colour, "width": 1.6, "shape": shape}
        trace["line"]["dash"] = DASHES[series.stroke]
    if any(series.spread):
        trace["error_x"] = {
            "type": "data", "array": [value or 0.0 for value in series.spread],
            "color": colour, "thickness": 0.8, "width": 0,
        }  # fmt: skip
    return trace


def _heat(heat: Heat, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Grey cells below, coloured ones above them."""
    places = list(range(len(heat.labels)))
    shared = {"type": "heatmap", "x": places, "y": places, "xgap": 1, "ygap": 1}
    grey = [[None if i == j else 0.0 for j in places] for i in places]
    below = {**shared, "z": grey, "showscale": False, "hoverinfo": "skip"}
    below["colorscale"] = [[0.0, colours["unknown"]], [1.0, colours["unknown"]]]
    above = {
        **shared,
        "z": [list(row) for row in heat.values],
        "zmin": -heat.limit,
        "zmax": heat.limit,
        "colorscale": [[0.0, colours["blue"]], [0.5, colours["paper"]], [1.0, colours["red"]]],
        "colorbar": {"title": {"text": f"{plain(heat.title)}<br> ", "side": "top"},
                     "thickness": 12, "tickformat": "~g", "outlinewidth": 0},
        "hoverinfo": "text",
        "hovertext": [list(map(plain, row)) for row in heat.texts],
    }  # fmt: skip
    return [below, above]


def plain(text: str) -> str:
    """Text that plotly, which knows some HTML, shows as it is; line feeds become breaks."""
    return escape(text, quote=False).replace("\n", "<br>")
