"""Blocks and lines as an inline SVG: what stays, what is gone, what passes through."""

from collections.abc import Sequence
from math import dist

from ...graph.graph import Graph, Mask
from ...graph.liveness import liveness
from ...values.markup import Markup, number, tag
from .. import numbers
from ..facts import Facts
from .blocks import Block, Fate, Link, contract, fates, membership, units_of
from .layout import Box, Item, Point, arrange
from .wrap import fold

WIDTH = 1196.0
LETTER = 6.3  # of the 11 px label
HEIGHTS = {"box": 38.0, "pill": 22.0, "joint": 22.0}
ROUND = 5.0
WHOLE = Fate(dead=False, bypassed=(), forwarded=False)


class Sheet:
    """The blocks of a network and what becomes of them.

    Args:
        facts: of the study.
        mask: what is removed; None = what the plan removes.
    """

    def __init__(self, facts: Facts, mask: Mask | None = None) -> None:
        self.facts, self.mask = facts, facts.mask if mask is None else mask
        self.rest = liveness(facts.graph, self.mask)
        self.blocks, self.links = contract(facts.graph)
        self.after = fates(self.blocks, self.rest)
        self.members = membership(facts.graph)

    def dead(self, link: Link) -> bool:
        """Whether nothing flows there any more."""
        return self.rest.wants[link.edge] is None


def _item(graph: Graph, block: Block, fate: Fate) -> Item:
    if block.form == "joint":
        return Item(22.0, HEIGHTS["joint"], block.macs)
    details = [_detail(graph, block, state) for state in (WHOLE, fate)]
    letters = max(len(block.label), *(0.92 * len(detail) for detail in details))
    least = 112.0 if block.form == "box" else 44.0
    return Item(max(least, letters * LETTER + 20), HEIGHTS[block.form], block.macs + block.params)


def _detail(graph: Graph, block: Block, fate: Fate) -> str:
    """The second line in a box."""
    if block.form != "box":
        return ""
    if fate.bypassed and not fate.dead:
        return f"bypassed: {_bypassed(graph, fate)}"
    shape = numbers.shape(block.shape, block.batched)
    if fate.kept and not fate.dead:
        kept, size = next(iter(fate.kept.values()))
        shape = f"{kept} of {size} channels"
    return f"{shape} · {numbers.count(block.macs)} MACs" if block.macs else shape


def _bypassed(graph: Graph, fate: Fate) -> str:
    """The bypassed layer's last name (with the one before it, if that is a number)."""
    if len(fate.bypassed) > 1:
        return f"{len(fate.bypassed)} layers"
    parts = graph.vertices[fate.bypassed[0]].name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


def diagram(sheet: Sheet) -> Markup:
    """The network as SVG."""
    graph, links = sheet.facts.graph, sheet.links
    items = [_item(graph, *pair) for pair in zip(sheet.blocks, sheet.after, strict=True)]
    folded = fold(arrange(items, [(link.source, link.target) for link in links]), WIDTH)
    order = sorted(range(len(links)), key=lambda i: not sheet.dead(links[i]))
    return tag(
        "svg",
        tag("g", (_line(sheet, links[i], folded.lines[i]) for i in order)),
        tag("g", (_crossing(point) for point in folded.crossings), class_="crossings"),
        tag("g", (_node(sheet, i, box) for i, box in enumerate(folded.boxes))),
        class_="network",
        width=folded.width,
        height=folded.height,
        viewBox=f"0 0 {number(folded.width)} {number(folded.height)}",
        role="group",
        aria_label=f"Dataflow graph of {len(sheet.blocks)} blocks, top to bottom",
        data_walk="",
    )


def _line(sheet: Sheet, link: Link, pieces: Sequence[Sequence[Point]]) -> Markup:
    facts, unit = sheet.facts, sheet.members.edges.get(link.edge)
    return tag(
        "path",
        tag("title", _flow(sheet, link, unit)) if unit is not None or facts.insight.flows else None,
        d=" ".join(map(_path, pieces)),
        class_="edge dead" if sheet.dead(link) else "edge",
        data_ends=f"{link.source} {link.target}",
    )


def _flow(sheet: Sheet, link: Link, unit: int | None) -> str:
    """What a line says: the share of the flow that takes it, and the unit that cuts it."""
    lines = [] if unit is None else [_of_unit(sheet, unit)]
    if sheet.facts.insight.flows is not None:
        share = numbers.share(sheet.facts.insight.flows[link.edge])
        lines.insert(0, f"γ: {share} of what leaves its source flows here")
    return "\n".join(lines)


def _path(corners: Sequence[Point]) -> str:
    """A rectilinear line with rounded corners."""
    x, y = corners[0]
    steps = [f"M{number(x)} {number(y)}"]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        radius = min(ROUND, dist(before, corner) / 2, dist(corner, after) / 2)
        a, b = _towards(corner, before, radius), _towards(corner, after, radius)
        steps.append(f"L{_point(a)}Q{_point(corner)} {_point(b)}")
    return "".join([*steps, f"L{_point(corners[-1])}"])


def _point(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _towards(a: Point, b: Point, distance: float) -> Point:
    part = distance / (dist(a, b) or 1.0)
    return a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part


def _crossing(point: Point) -> Markup:
    x, y = point
    return tag(
        "path",
        d=f"M{number(x - 3.5)} {number(y - 3)}L{number(x)} {number(y + 1)}"
        f"L{number(x + 3.5)} {number(y - 3)}",
    )


def _node(sheet: Sheet, index: int, box: Box) -> Markup:
    block, fate = sheet.blocks[index], sheet.after[index]
    detail = _detail(sheet.facts.graph, block, fate)
    radius = 6.0 if block.form == "box" else box.height / 2
    return tag(
        "g",
        tag("title", _title(sheet, block, fate)),
        tag("rect", x=box.left, y=box.top, width=box.width, height=box.height, rx=radius),
        strike(kind(fate), box.left, box.top, box.right, box.bottom),
        tag(
            "text",
            block.label,
            x=box.x,
            y=box.y - 3 if detail else box.y + 4,
            class_="sign" if block.form == "joint" else None,
        ),
        tag("text", detail, x=box.x, y=box.y + 11, class_="detail") if detail else None,
        class_=f"node {kind(fate)} {block.form}",
        data_id=index,
    )


def kind(fate: Fate) -> str:
    """What becomes of a block, in one word (a class of the style sheet)."""
    if fate.dead:
        return "dead"
    if fate.bypassed:
        return "bypassed"
    return "forwarded" if fate.forwarded else "live"


def strike(word: str, left: float, top: float, right: float, bottom: float) -> Markup | None:
    """The stroke through a dead block."""
    if word == "dead":
        return tag(
            "path",
            d=f"M{number(left)} {number(bottom)}L{number(right)} {number(top)}",
            class_="strike",
        )
    return None


def _kept(fate: Fate, vertex: int) -> str:
    """How many channels of a vertex remain, if not all do."""
    return " (keeps {} of {} channels)".format(*fate.kept[vertex]) if vertex in fate.kept else ""


def _title(sheet: Sheet, block: Block, fate: Fate) -> str:
    graph = sheet.facts.graph
    gives = f"gives {numbers.shape(block.shape, block.batched)}"
    lines = [_names(graph, block, fate), gives]
    if block.params or block.macs:
        lines.append(f"{numbers.count(block.params)} parameters, {numbers.count(block.macs)} MACs")
    if fate.dead:
        lines.append("removed")
    elif fate.forwarded:
        lines.append("passes its one remaining input on")
    units = units_of(graph, block, sheet.members)[:6]
    return "\n".join([*lines, *(_of_unit(sheet, unit) for unit in units)])


def _names(graph: Graph, block: Block, fate: Fate) -> str:
    """The layers of a block, and which are bypassed or keep fewer channels."""
    gone = set(fate.bypassed)
    names = ((i, graph.vertices[i].name) for i in block.vertices)
    return ", ".join(
        f"{name} (bypassed)" if i in gone else f"{name}{_kept(fate, i)}" for i, name in names
    )


def _of_unit(sheet: Sheet, unit: int) -> str:
    facts = sheet.facts
    known = facts.graph.units[unit]
    words = [f"unit {known.label} ({known.name})"]
    if sheet.mask.bits[unit]:
        words.append("removed")
    elif known.name in facts.protected:
        words.append("protected")
    if unit in facts.alone:
        words.append(f"alone: loss {numbers.plain(facts.alone[unit])}")
    return " · ".join(words)
