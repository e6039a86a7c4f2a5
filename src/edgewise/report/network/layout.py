"""A layered drawing of a directed acyclic graph as plain data: boxes in rows, lines downwards.

Every box stands in the row of its depth. A line to the next row goes straight; a longer one runs
down a lane to the right of the rows it passes. Lines are rectilinear and never go up.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

BETWEEN = 18.0  # horizontally between boxes
LANE = 8.0  # between lanes
ASIDE = 16.0  # from a box to the first lane
LEVEL = 5.0  # between horizontal runs in one gap
GAP = 9.0  # above and below them


@dataclass(frozen=True, slots=True)
class Item:
    """A box to be placed: its size, and how much it matters (the heaviest is in the middle)."""

    width: float
    height: float
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """A placed box: centre, size and row."""

    x: float
    y: float
    width: float
    height: float
    row: int

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes by item and lines by link.

    `cuts` are heights, one for each gap between rows, where every line that crosses is vertical.
    """

    boxes: tuple[Box, ...]
    lines: tuple[tuple[Point, ...], ...]
    cuts: tuple[float, ...]


def arrange(items: Sequence[Item], links: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes and lines.

    Args:
        items: in topological order.
        links: (source, target) indices of items, source < target.

    Returns:
        The layout: one box an item, one line (a tuple of corners) a link.
    """
    parents: list[list[int]] = [[] for _ in items]
    for source, target in links:
        parents[target].append(source)
    rows = _rows(items, parents)
    xs = _columns(items, parents, rows)
    lanes = _lanes(items, links, rows, xs)
    gaps = _gaps(links, rows, lanes, xs)
    tops, heights = _heights(items, rows, gaps)
    boxes = tuple(
        Box(xs[i], tops[row] + heights[row] / 2, item.width, item.height, row)
        for i, (item, row) in enumerate(zip(items, rows, strict=True))
    )
    floors = [top + height for top, height in zip(tops, heights, strict=True)]
    lines = tuple(_line(link, boxes, lanes, gaps, floors) for link in links)
    return Layout(boxes, lines, tuple(floors[r] + gaps[r].cut for r in range(len(floors) - 1)))


def _rows(items: Sequence[Item], parents: Sequence[Sequence[int]]) -> list[int]:
    """Depth: the longest path from an input."""
    rows: list[int] = []
    for index in range(len(items)):
        rows.append(1 + max((rows[p] for p in parents[index]), default=-1))
    return rows


def _columns(
    items: Sequence[Item], parents: Sequence[Sequence[int]], rows: Sequence[int]
) -> list[float]:
    """Horizontal centres: below the parents, the heaviest of two siblings straight below."""
    xs = [0.0] * len(items)
    members: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row].append(index)
    for row in sorted(members):
        wished: dict[float, list[int]] = defaultdict(list)
        for index in members[row]:
            wished[_below([xs[p] for p in parents[index]])].append(index)
        right = float("-inf")
        for wish in sorted(wished):
            right = _place(items, wished[wish], wish, right, xs)
    return xs


def _below(above: Sequence[float]) -> float:
    """Under the one parent; on the axis if one of several is there; else in the middle."""
    middle = sum(above) / len(above) if above else 0.0
    if abs(middle) < BETWEEN or min(map(abs, above)) < 1:
        return 0.0
    return middle


def _place(
    items: Sequence[Item], siblings: list[int], wish: float, right: float, xs: list[float]
) -> float:
    """Set siblings around their wish, right of `right`; returns the new right border."""
    if len(siblings) == 2:
        siblings = sorted(siblings, key=lambda i: (-items[i].weight, i))
        left = wish - items[siblings[0]].width / 2
    else:
        width = sum(items[i].width for i in siblings) + BETWEEN * (len(siblings) - 1)
        left = wish - width / 2
    left = max(left, right + BETWEEN)
    for index in siblings:
        xs[index] = float(round(left + items[index].width / 2))
        left += items[index].width + BETWEEN
    return left - BETWEEN


def _lanes(
    items: Sequence[Item],
    links: Sequence[tuple[int, int]],
    rows: Sequence[int],
    xs: Sequence[float],
) -> dict[int, float]:
    """For each source of a long line, the x of the lane that its long lines share."""
    borders: dict[int, float] = defaultdict(lambda: float("-inf"))
    for item, row, x in zip(items, rows, xs, strict=True):
        borders[row] = max(borders[row], x + item.width / 2)
    last: dict[int, int] = {}
    for source, target in links:
        if rows[target] > rows[source] + 1:
            last[source] = max(last.get(source, 0), rows[target])
    taken: dict[int, list[float]] = defaultdict(list)
    lanes: dict[int, float] = {}
    for source in sorted(last, key=lambda s: (last[s] - rows[s], s)):
        passed = range(rows[source] + 1, last[source])
        x = max(borders[row] for row in passed) + ASIDE
        busy = sorted(other for row in [rows[source], *passed] for other in taken[row])
        for other in busy:
            if abs(other - x) < LANE:
                x = other + LANE
        lanes[source] = x
        for row in [rows[source], *passed]:
            taken[row].append(x)
    return lanes


@dataclass(frozen=True, slots=True)
class _Gap:
    """Levels of horizontal runs below a row: lines that leave for a lane, then arrivals."""

    leaving: dict[int, float]
    arriving: dict[int, float]
    cut: float
    height: float


def _gaps(
    links: Sequence[tuple[int, int]],
    rows: Sequence[int],
    lanes: dict[int, float],
    xs: Sequence[float],
) -> list[_Gap]:
    leaving: dict[int, list[int]] = defaultdict(list)
    for source in lanes:
        leaving[rows[source]].append(source)
    parents: dict[int, set[int]] = defaultdict(set)
    arriving: dict[int, set[int]] = defaultdict(set)
    for source, target in links:
        parents[target].add(source)
        far = rows[target] > rows[source] + 1
        if (lanes[source] if far else xs[source]) != xs[target]:
            arriving[rows[target] - 1].add(target)
    return [
        _gap(
            sorted(leaving[row]),
            {target: frozenset(parents[target]) for target in sorted(arriving[row])},
        )
        for row in range(max(rows, default=0) + 1)
    ]


def _gap(leaving: Sequence[int], arriving: dict[int, frozenset[int]]) -> _Gap:
    """Targets with the same parents share a level: their lines are one bus."""
    out = {source: GAP + LEVEL * i for i, source in enumerate(leaving)}
    cut = GAP + LEVEL * max(len(leaving) - 1, 0) + 3.0
    buses = {parents: i for i, parents in enumerate(dict.fromkeys(arriving.values()))}
    into = {target: cut + 3.0 + LEVEL * buses[parents] for target, parents in arriving.items()}
    return _Gap(out, into, cut, cut + 3.0 + LEVEL * max(len(buses) - 1, 0) + GAP + 2.0)


def _heights(
    items: Sequence[Item], rows: Sequence[int], gaps: Sequence[_Gap]
) -> tuple[list[float], list[float]]:
    heights = [0.0] * (max(rows, default=-1) + 1)
    for item, row in zip(items, rows, strict=True):
        heights[row] = max(heights[row], item.height)
    tops, y = [], 0.0
    for height, gap in zip(heights, gaps, strict=False):
        tops.append(y)
        y += height + gap.height
    return tops, heights


def _line(
    link: tuple[int, int],
    boxes: Sequence[Box],
    lanes: dict[int, float],
    gaps: Sequence[_Gap],
    floors: Sequence[float],
) -> tuple[Point, ...]:
    source, target = boxes[link[0]], boxes[link[1]]
    points = [(source.x, source.bottom)]
    x = source.x
    if target.row > source.row + 1:
        x = lanes[link[0]]
        y = floors[source.row] + gaps[source.row].leaving[link[0]]
        points += [(source.x, y), (x, y)]
    if x != target.x:
        above = target.row - 1
        y = floors[above] + gaps[above].arriving[link[1]]
        points += [(x, y), (target.x, y)]
    return (*points, (target.x, target.top))
