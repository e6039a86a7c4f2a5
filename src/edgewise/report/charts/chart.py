"""A chart as plain data: what it shows, in which marks and words, whoever draws it.

`plotly` and `matplotlib` draw it, and a page says it in words.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["dot", "ring", "diamond", "triangle", "square", "star", "cross"]
Role = Literal["ink", "grey", "blue", "orange", "green", "plum", "red", "teal"]
Stroke = Literal["solid", "dotted", "dashed", "steps"]

WIDE = 20.0  # a logarithmic axis where values span this factor
TINY = 1e-30  # smaller values are drawn as zero


@dataclass(frozen=True, slots=True)
class Axis:
    """A title with its unit; the ticks are plain numbers, whole ones, or have prefixes (1.5 M)."""

    title: str
    log: bool = False
    ticks: Literal["plain", "whole", "prefixed"] = "plain"


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together, drawn as marks or as one line.

    Args:
        name: in the legend.
        xs, ys: coordinates [n], finite; a line breaks where they are NaN.
        role: what its colour stands for; every drawer has one for each.
        form: of the marks; None draws none.
        stroke: of the line; None draws none.
        texts: what each point says when it is pointed at [n], lines separated by a line feed.
        spread: half the width of a horizontal bar through each point [n]; None where it has none.
        listed: whether the legend names it.
    """

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    role: Role = "blue"
    form: Form | None = None
    stroke: Stroke | None = None
    texts: tuple[str, ...] = ()
    spread: tuple[float | None, ...] = ()
    listed: bool = True


@dataclass(frozen=True, slots=True)
class Heat:
    """A square map of signed numbers, zero in the middle of the colours.

    Args:
        labels: of rows and columns [n].
        values: [n][n]; None is drawn grey.
        texts: [n][n], what each cell says.
        limit: the number at the end of the colours.
        title: what the numbers are.
    """

    labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    limit: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Args:
        name: a word for files and addresses within a page.
        sentence: what it shows, for who does not see it.
        x, y: the axes; None of a map.
        series: in drawing order.
        heat: instead of series.
        square: both axes have the same scale.
    """

    name: str
    sentence: str
    x: Axis | None = None
    y: Axis | None = None
    series: tuple[Series, ...] = ()
    heat: Heat | None = None
    square: bool = False


def spans_decades(values: tuple[float, ...] | list[float]) -> bool:
    """Whether a logarithmic axis suits these values: all positive, far apart."""
    return bool(values) and min(values) > TINY and max(values) > WIDE * min(values)
