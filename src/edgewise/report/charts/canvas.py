"""A chart on the page: drawn by plotly, said in a sentence, and given as a table."""

from __future__ import annotations

from ...values.markup import Markup, raw, table, tag
from ..terms import scrolled
from . import plotly
from .chart import Chart

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
    more = len(chart.rows) - MOST
    rows = table(chart.columns, chart.rows[:MOST])
    return [
        scrolled(f"Data of the chart: {chart.name}", rows, class_="tall"),
        tag("p", f"{more} more are in the study.", class_="note") if more > 0 else None,
    ]
