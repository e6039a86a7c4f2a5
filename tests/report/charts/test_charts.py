"""Charts: every drawer shows the same data."""

from __future__ import annotations

from math import nan
from pathlib import Path

import pytest

from edgewise.report.charts import charts, matplotlib, plotly
from edgewise.report.charts.canvas import canvas
from edgewise.report.charts.chart import Axis, Chart, Heat, Series

CHART = Chart(
    "name", "A sentence.", Axis("x"), Axis("y <b>$", log=True),
    (
        Series("dots <i>", (1.0, 2.0), (3.0, 4.0), "plum", "star", texts=("<a>\nb", "c"),
               spread=(0.1, None)),
        Series("line", (1.0, nan, 2.0), (1.0, nan, 2.0), stroke="steps"),
    ),
)  # fmt: skip
HEAT = Chart(
    "map", "A sentence.",
    heat=Heat(("u", "u"), ((None, 0.5), (0.5, None)), (("", "x"), ("x", "")), 0.5, "effect"),
)  # fmt: skip


def test_drawers_show_the_same_numbers() -> None:
    figure, axes = plotly.figure(CHART), matplotlib.static(CHART).axes[0]
    for trace_, series in zip(figure.data, CHART.series, strict=True):
        kept = [x for x in series.xs if x == x]
        assert [x for x in trace_.x if x is not None] == kept
    assert list(axes.lines[0].get_ydata()) == [3.0, 4.0]
    assert figure.layout.yaxis.type == axes.get_yscale() == "log"


def test_the_table_of_a_chart_has_all_its_points() -> None:
    dots, cells = canvas(CHART), canvas(HEAT)
    for name, x, y in (("dots &lt;i&gt;", 1, 3), ("dots &lt;i&gt;", 2, 4), ("line", 1, 1)):
        assert f'scope="row">{name}</th><td>{x}.000</td><td>{y}.000</td>' in dots
    assert "nan" not in dots[dots.index("<details") :]
    assert cells.count('<th scope="row">u</th><td>u</td><td>0.500</td>') == 1


def test_names_are_text_not_markup() -> None:
    figure = plotly.figure(CHART)
    assert figure.data[0].hovertext[0] == "&lt;a&gt;<br>b"
    assert figure.data[0].name == "dots &lt;i&gt;"


def test_unknown_pairs_stay_grey_and_equal_names_apart() -> None:
    grey, seen = plotly.figure(HEAT).data
    assert seen.z[0][0] is None
    assert list(seen.x) == [0, 1]
    assert grey.colorscale[0][1] == plotly.COLOURS["unknown"]
    matplotlib.static(HEAT)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_static_figures_are_written(tmp_path: Path, ending: str) -> None:
    assert (
        matplotlib.save(matplotlib.static(CHART), tmp_path / f"chart.{ending}").stat().st_size
        > 1000
    )


def test_methods_with_one_mask_are_points() -> None:
    chart = charts.methods({"one": [[None, 0.5, 0.5]], "two": [[0.9, 0.4], [0.8, 0.3]]})
    assert [(s.form, s.stroke, s.listed) for s in chart.series] == [
        ("dot", None, True), (None, "steps", True), (None, "steps", False)
    ]  # fmt: skip
    assert "the lowest search loss is 0.300" in chart.sentence
