"""A tall layout in columns, as a newspaper sets a long text: read down, then on at the top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .layout import Box, Layout, Point

STUB = 12.0  # how far lines go on at both ends of a cut
MARGIN = 14.0
BETWEEN = 44.0  # between columns
CROSSING = 0.12  # of a column's height that avoiding one more cut line is worth


@dataclass(frozen=True, slots=True)
class Folded:
    """A layout in columns.

    Args:
        boxes: moved.
        lines: for each link its pieces, one a column that it runs through.
        crossings: (x, y) where a line goes on in the next column.
        width: of the whole drawing.
        height: of the whole drawing.
    """

    boxes: tuple[Box, ...]
    lines: tuple[tuple[tuple[Point, ...], ...], ...]
    crossings: tuple[Point, ...]
    width: float
    height: float


def fold(layout: Layout, width: float) -> Folded:
    """The layout in as many columns of equal height as give the best use of `width`."""
    choices = [_folded(layout, columns) for columns in range(1, 9)]
    fitting = [choice for choice in choices if choice.width <= width] or choices[:1]
    return min(fitting, key=lambda choice: choice.height)


def _folded(layout: Layout, columns: int) -> Folded:
    cuts = _chosen(layout, columns)
    edges = [float("-inf"), *cuts, float("inf")]
    pieces = [_pieces(line, cuts) for line in layout.lines]
    moves: list[Point] = []
    left, height = MARGIN, 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        boxes = [box for box in layout.boxes if low < box.y < high]
        corners = [p for line in pieces for piece in line for p in piece.get(low, ())]
        x = min([box.left for box in boxes] + [p[0] for p in corners], default=0.0)
        right = max([box.right for box in boxes] + [p[0] for p in corners], default=0.0)
        y = min([box.top for box in boxes] + [p[1] for p in corners], default=0.0)
        bottom = max([box.bottom for box in boxes] + [p[1] for p in corners], default=0.0)
        moves.append((left - x, MARGIN - y))
        left += right - x + BETWEEN
        height = max(height, bottom - y)
    return _moved(layout, pieces, edges, moves, (left - BETWEEN + MARGIN, height + 2 * MARGIN))


def _pieces(line: Sequence[Point], cuts: Sequence[float]) -> list[dict[float, list[Point]]]:
    raise NotImplementedError


def _chosen(layout: Layout, columns: int) -> list[float]:
    raise NotImplementedError


def _moved(*args: object) -> Folded:
    raise NotImplementedError


_ = replace
