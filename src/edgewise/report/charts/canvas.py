"""A chart on the page: drawn by plotly, said in a sentence, and given as a table."""

from math import isnan

from ...values.markup import Markup, raw, table, tag
from .. import numbers
from ..terms import scrolled
from . import plotly
from .chart import Axis, Chart

MOST = 200  # rows of a table
COLOURS = {role: f"var(--o-{role})" for role in plotly.COLOURS}  # the page's style has them


def canvas(chart: Chart) -> Markup:
    """The chart, for the page's script to draw, and its data for who cannot see it."""
    data = plotly.figure(chart, COLOURS).to_json().replace("<", "\\u003c")
    shape = "square" if chart.square else "map" if chart.heat else "wide"
    return tag(
        "div",
        tag("div", class_=f"canvas {shape}", role="img", aria_label=chart.sentence),
        tag("script", raw(data), type="application/json"),
        tag("details", tag("summary", "Data as a table"), _table(chart)),
        class_="plot figure",
        data_chart=chart.name,
    )


def _table(chart: Chart) -> list[Markup | None]:
    rows = _rows(chart)
    more = len(rows) - MOST
    head = ("Which", *(axis.title.capitalize() for axis in (chart.x, chart.y) if axis))
    if chart.heat:
        head = ("One", "Other", chart.heat.title.capitalize())
    return [
        scrolled(f"Data of the chart: {chart.name}", table(head, rows[:MOST]), class_="tall"),
        tag("p", f"{more} more are in the study.", class_="note") if more > 0 else None,
    ]


def _rows(chart: Chart) -> list[tuple[str, ...]]:
    """What every point or cell stands for."""
    if chart.heat:
        names, cells = chart.heat.labels, chart.heat.values
        pairs = ((i, j) for i in range(len(names)) for j in range(i))
        return [(names[j], names[i], numbers.plain(v)) for i, j in pairs if (v := cells[i][j])]
    return [
        (series.name, *(_value(axis, v) for axis, v in ((chart.x, x), (chart.y, y))))
        for series in chart.series
        for x, y in zip(series.xs, series.ys, strict=True)
        if series.listed and not isnan(x + y)
    ]


def _value(axis: Axis | None, value: float) -> str:
    return numbers.plain(value) if axis is None or axis.ticks == "plain" else numbers.count(value)
