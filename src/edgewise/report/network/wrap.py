"""A tall layout in columns, as a newspaper sets a long text: read down, then on at the top."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .layout import Box, Layout, Point

STUB = 12.0  # how far a line is drawn beyond a cut
MARGIN = 14.0
BETWEEN = 44.0  # between columns
CROSSING = 0.25  # of a column's height: what one more line across a cut costs
MOST = 8
LOW = 640.0  # a drawing no higher needs no further columns

Piece = tuple[int, tuple[Point, ...]]  # column, corners


@dataclass(frozen=True, slots=True)
class Folded:
    """A layout in columns.

    Args:
        boxes: by item.
        lines: for each link its pieces, one for each column that it runs through.
        crossings: ends of lines that go on in the next column.
        width: of the whole drawing.
        height: of the whole drawing.
    """

    boxes: tuple[Box, ...]
    lines: tuple[tuple[tuple[Point, ...], ...], ...]
    crossings: tuple[Point, ...]
    width: float
    height: float


def fold(layout: Layout, width: float) -> Folded:
    """The layout in columns of about equal height.

    As few columns as keep it low, otherwise as many as fit `width` (at least one).
    """
    choices = [_folded(layout, _chosen(layout, n)) for n in range(1, MOST + 1)]
    fitting = [choice for choice in choices if choice.width <= width] or choices[:1]
    low = [choice for choice in fitting if choice.height <= LOW]
    return low[0] if low else min(fitting, key=lambda choice: choice.height)


def _chosen(layout: Layout, columns: int) -> list[float]:
    """Heights to cut at: near equal parts, where few lines cross."""
    height = max((box.bottom for box in layout.boxes), default=0.0)
    part = height / columns
    crossed = {cut: len(_across(layout, cut)) for cut in layout.cuts}

    def badness(cut: float, target: float) -> float:
        return abs(cut - target) / part + CROSSING * crossed[cut]

    best = {min(crossed, key=lambda c: badness(c, part * n)) for n in range(1, columns) if crossed}
    return sorted(best)


def _across(layout: Layout, cut: float) -> set[float]:
    """Where lines cross a height."""
    return {a[0] for line in layout.lines for a, b in pairwise(line) if a[1] < cut < b[1]}


def _folded(layout: Layout, cuts: Sequence[float]) -> Folded:
    columns = [bisect(cuts, box.y) for box in layout.boxes]
    lines = [_pieces(line, cuts) for line in layout.lines]
    moves, width, height = _moves(layout, columns, lines, len(cuts) + 1)

    def moved(column: int, point: Point) -> Point:
        return point[0] + moves[column][0], point[1] + moves[column][1]

    ends = {moved(c, corners[-1]) for line in lines for c, corners in line[:-1]}
    return Folded(
        tuple(
            replace(box, x=box.x + moves[c][0], y=box.y + moves[c][1])
            for box, c in zip(layout.boxes, columns, strict=True)
        ),
        tuple(tuple(tuple(moved(c, p) for p in corners) for c, corners in line) for line in lines),
        tuple(sorted(ends)),
        width,
        height,
    )


def _pieces(line: Sequence[Point], cuts: Sequence[float]) -> list[Piece]:
    """A line cut at the given heights, each piece a little longer than its column."""
    column = bisect(cuts, line[0][1])
    pieces: list[Piece] = []
    corners = [line[0]]
    for x, y in line[1:]:
        while column < len(cuts) and y > cuts[column]:
            pieces.append((column, (*corners, (x, cuts[column] + STUB))))
            corners = [(x, cuts[column] - STUB)]
            column += 1
        corners.append((x, y))
    return [*pieces, (column, tuple(corners))]


def _moves(
    layout: Layout, columns: Sequence[int], lines: Sequence[Sequence[Piece]], count: int
) -> tuple[list[Point], float, float]:
    """How far each column moves, and the size of the whole."""
    points: list[list[Point]] = [[] for _ in range(count)]
    for box, column in zip(layout.boxes, columns, strict=True):
        points[column] += [(box.left, box.top), (box.right, box.bottom)]
    for line in lines:
        for column, corners in line:
            points[column] += corners
    moves: list[Point] = []
    left, height = MARGIN, 0.0
    for part in points:
        xs, ys = [p[0] for p in part] or [0.0], [p[1] for p in part] or [0.0]
        moves.append((left - min(xs), MARGIN - min(ys)))
        left += max(xs) - min(xs) + BETWEEN
        height = max(height, max(ys) - min(ys))
    return moves, left - BETWEEN + MARGIN, height + 2 * MARGIN
