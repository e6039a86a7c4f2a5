"""The network as a chart: a mark for each block, lines for the flows between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from ...graph.graph import Graph, Mask
from ...graph.liveness import liveness
from .. import numbers
from ..charts.chart import Chart, Form, Role, Series
from .blocks import Block, contract, fates
from .layout import Item, Point, arrange
from .wrap import fold

WIDTH, SPACING = 1200.0, 190.0  # of the whole; what a mark and its label take
KINDS: Sequence[tuple[str, Role, Form]] = (
    ("stays", "teal", "square"),
    ("bypassed in part", "orange", "diamond"),
    ("removed", "red", "cross"),
)


def boxes(graph: Graph, mask: Mask | None = None) -> Chart:
    """The blocks of a graph from top to bottom, and what becomes of them under a mask."""
    blocks, links = contract(graph)
    rest = liveness(graph, mask or graph.empty)
    after = [_kind(fate.dead, bool(fate.bypassed)) for fate in fates(blocks, rest)]
    items = [Item(SPACING, 22.0, block.macs + block.params) for block in blocks]
    folded = fold(arrange(items, [(link.source, link.target) for link in links]), WIDTH)
    dead = [rest.wants[link.edge] is None for link in links]

    marks = [(box.x, -box.y) for box in folded.boxes]
    series = [
        _lines("removed flow", folded.lines, [i for i, gone in enumerate(dead) if gone], "red"),
        _lines("flow", folded.lines, [i for i, gone in enumerate(dead) if not gone], "grey"),
        *(_marks(*kind, blocks, marks, after) for kind in KINDS),
    ]
    gone = after.count("removed")
    return Chart(
        "graph",
        f"{numbers.counted(len(blocks), 'block')} from top to bottom, {gone} of them removed.",
        series=tuple(one for one in series if one.xs),
    )  # fmt: skip


def _kind(dead: bool, bypassed: bool) -> str:
    return "removed" if dead else "bypassed in part" if bypassed else "stays"


def _lines(
    name: str, lines: Sequence[Sequence[Sequence[Point]]], chosen: Sequence[int], role: Role
) -> Series:
    """One broken line for many flows."""
    points = [point for i in chosen for piece in lines[i] for point in (*piece, (nan, nan))]
    xs, ys = tuple(x for x, _ in points), tuple(-y for _, y in points)
    return Series(name, xs, ys, role, stroke="dotted" if role == "red" else "solid", listed=False)


def _marks(
    name: str, role: Role, form: Form, blocks: Sequence[Block], at: Sequence[Point],
    after: Sequence[str],
) -> Series:  # fmt: skip
    mine = [i for i, kind in enumerate(after) if kind == name]
    return Series(
        name, tuple(at[i][0] for i in mine), tuple(at[i][1] for i in mine), role, form,
        texts=tuple(_text(blocks[i]) for i in mine), labels=tuple(blocks[i].label for i in mine),
    )  # fmt: skip


def _text(block: Block) -> str:
    lines = [block.label, f"gives {numbers.shape(block.shape, block.batched)}"]
    if block.params or block.macs:
        lines.append(f"{numbers.count(block.params)} parameters, {numbers.count(block.macs)} MACs")
    return "\n".join(lines)
