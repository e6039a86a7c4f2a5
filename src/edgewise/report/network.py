"""The network as an inline SVG: what stays, what is gone, what passes through."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Graph
from . import figures
from .blocks import Block, Fate, Link, Membership, contract, fates, membership, units_of
from .facts import Facts
from .fold import Folded, fold
from .layout import Box, Item, Point, arrange
from .markup import Markup, number, tag

WIDTH = 1196.0
LETTER = 6.3  # of the 11 px label
HEIGHTS = {"box": 38.0, "pill": 22.0, "joint": 22.0}
ROUND = 5.0


def network(facts: Facts) -> Markup:
    """The section that draws the graph."""
    blocks, links = contract(facts.graph)
    after = fates(blocks, facts.rest)
    items = [_item(facts.graph, *pair) for pair in zip(blocks, after, strict=True)]
    layout = arrange(items, [(link.source, link.target) for link in links])
    folded = fold(layout, WIDTH)
    return tag(
        "section",
        tag("h2", "The network", id="network"),
        tag("p", _caption(facts, len(blocks)), class_="lead"),
        tag("div", _legend(after) if facts.plan else None, _buttons(), class_="tools"),
        tag(
            "div",
            tag(
                "div",
                _drawing(facts, blocks, after, links, folded),
                class_="stage",
                tabindex=0,
                role="group",
                aria_label="Network drawing: + and - zoom, 0 fits, arrows walk over boxes",
            ),
            class_="figure",
        ),
        class_="pannable",
        aria_labelledby="network",
    )


def _caption(facts: Facts, blocks: int) -> str:
    text = (
        f"{len(facts.graph.vertices)} operators drawn as {blocks} boxes: chains of operators that "
        "live and die together are one box. Data flows downwards, and from the foot of a column to "
        "the head of the next."
    )
    if facts.plan is None:
        return f"{text} Nothing is chosen yet, so everything is drawn alive."
    return text


def _legend(after: Sequence[Fate]) -> Markup:
    seen = set(map(_kind, after))
    entries = (
        ("live", "stays"),
        ("dead", "removed"),
        ("forwarded", "passes its one input on"),
        ("bypassed", "contains bypassed layers"),
    )
    return tag(
        "ul",
        (
            tag(
                "li",
                tag(
                    "svg",
                    tag(
                        "g",
                        tag("rect", x=1, y=1, width=26, height=12, rx=3),
                        _strike(name, 1, 1, 27, 13),
                        class_=f"node {name}",
                    ),
                    width=28,
                    height=14,
                    viewBox="0 0 28 14",
                    aria_hidden="true",
                ),
                text,
            )
            for name, text in entries
            if name in seen
        ),
        class_="legend",
    )


def _buttons() -> Markup:
    entries = (
        ("in", "+", "Zoom in"),
        ("out", "\N{MINUS SIGN}", "Zoom out"),
        ("fit", "Fit", "Fit the width"),
    )
    return tag(
        "div",
        (
            tag("button", text, type="button", data_zoom=name, aria_label=label, title=label)
            for name, text, label in entries
        ),
        class_="zoom",
    )


def _item(graph: Graph, block: Block, fate: Fate) -> Item:
    if block.form == "joint":
        return Item(22.0, HEIGHTS["joint"], block.macs)
    whole = Fate(dead=False, bypassed=(), forwarded=False)
    details = [_detail(graph, block, state) for state in (whole, fate)]
    letters = max(len(block.label), *(0.92 * len(detail) for detail in details))
    least = 112.0 if block.form == "box" else 44.0
    return Item(max(least, letters * LETTER + 20), HEIGHTS[block.form], block.macs + block.params)


def _detail(graph: Graph, block: Block, fate: Fate) -> str:
    """The second line in a box."""
    if block.form != "box":
        return ""
    if fate.bypassed and not fate.dead:
        return f"bypassed: {_bypassed(graph, fate)}"
    shape = figures.shape(block.shape, block.batched)
    if fate.kept and not fate.dead:
        kept, size = next(iter(fate.kept.values()))
        shape = f"{kept} of {size} channels"
    return f"{shape} · {figures.count(block.macs)} MACs" if block.macs else shape


def _bypassed(graph: Graph, fate: Fate) -> str:
    """The bypassed layer's last name (with the one before it, if that is a number)."""
    if len(fate.bypassed) > 1:
        return f"{len(fate.bypassed)} layers"
    parts = graph.vertices[fate.bypassed[0]].name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


def _drawing(
    facts: Facts,
    blocks: Sequence[Block],
    after: Sequence[Fate],
    links: Sequence[Link],
    folded: Folded,
) -> Markup:
    members = membership(facts.graph)
    dead = [facts.rest.wants[link.edge] is None for link in links]
    order = sorted(range(len(links)), key=lambda i: not dead[i])
    return tag(
        "svg",
        tag("g", (_line(facts, links[i], folded.lines[i], dead[i], members) for i in order)),
        tag("g", (_crossing(point) for point in folded.crossings), class_="crossings"),
        tag(
            "g",
            (
                _node(facts, i, block, folded.boxes[i], fate, members)
                for i, (block, fate) in enumerate(zip(blocks, after, strict=True))
            ),
        ),
        class_="network",
        width=folded.width,
        height=folded.height,
        viewBox=f"0 0 {number(folded.width)} {number(folded.height)}",
        role="img",
        aria_label=f"Dataflow graph of {len(blocks)} blocks, top to bottom",
        data_walk=True,
    )


def _line(
    facts: Facts, link: Link, pieces: Sequence[Sequence[Point]], dead: bool, members: Membership
) -> Markup:
    unit = members.edges.get(link.edge)
    return tag(
        "path",
        tag("title", _flow(facts, link, unit)) if unit is not None or facts.insight.flows else None,
        d=" ".join(map(_path, pieces)),
        class_="edge dead" if dead else "edge",
        data_ends=f"{link.source} {link.target}",
    )


def _flow(facts: Facts, link: Link, unit: int | None) -> str:
    """What a line says: the share of the flow that takes it, and the unit that cuts it."""
    lines = [] if unit is None else [_of_unit(facts, unit)]
    if facts.insight.flows is not None:
        share = figures.share(facts.insight.flows[link.edge])
        lines.insert(0, f"γ: {share} of what leaves its source flows here")
    return "\n".join(lines)


def _path(corners: Sequence[Point]) -> str:
    """A rectilinear line with rounded corners."""
    x, y = corners[0]
    steps = [f"M{number(x)} {number(y)}"]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        radius = min(ROUND, _length(before, corner) / 2, _length(corner, after) / 2)
        a, b = _towards(corner, before, radius), _towards(corner, after, radius)
        steps.append(f"L{_point(a)}Q{_point(corner)} {_point(b)}")
    return "".join([*steps, f"L{_point(corners[-1])}"])


def _point(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _length(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(a: Point, b: Point, distance: float) -> Point:
    part = distance / (_length(a, b) or 1.0)
    return a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part


def _crossing(point: Point) -> Markup:
    x, y = point
    return tag(
        "path",
        d=f"M{number(x - 3.5)} {number(y - 3)}L{number(x)} {number(y + 1)}"
        f"L{number(x + 3.5)} {number(y - 3)}",
    )


def _node(
    facts: Facts, index: int, block: Block, box: Box, fate: Fate, members: Membership
) -> Markup:
    kind = _kind(fate)
    text = _title(facts, block, fate, members)
    radius = {"box": 6.0, "pill": box.height / 2, "joint": box.height / 2}[block.form]
    detail = _detail(facts.graph, block, fate)
    label_y = box.y - 3 if detail else box.y + 4
    return tag(
        "g",
        tag("title", text),
        tag("rect", x=box.left, y=box.top, width=box.width, height=box.height, rx=radius),
        _strike(kind, box.left, box.top, box.right, box.bottom),
        tag(
            "text",
            block.label,
            x=box.x,
            y=label_y,
            class_="sign" if block.form == "joint" else None,
        ),
        tag("text", detail, x=box.x, y=box.y + 11, class_="detail") if detail else None,
        class_=f"node {kind} {block.form}",
        data_id=index,
    )


def _kind(fate: Fate) -> str:
    if fate.dead:
        return "dead"
    if fate.bypassed:
        return "bypassed"
    return "forwarded" if fate.forwarded else "live"


def _strike(kind: str, left: float, top: float, right: float, bottom: float) -> Markup | None:
    if kind == "dead":
        return tag(
            "path",
            d=f"M{number(left)} {number(bottom)}L{number(right)} {number(top)}",
            class_="strike",
        )
    return None


def _kept(fate: Fate, vertex: int) -> str:
    """How many channels of a vertex remain, if not all do."""
    return " (keeps {} of {} channels)".format(*fate.kept[vertex]) if vertex in fate.kept else ""


def _title(facts: Facts, block: Block, fate: Fate, members: Membership) -> str:
    graph = facts.graph
    names = [graph.vertices[i].name for i in block.vertices]
    gone = set(fate.bypassed)
    shown = [
        f"{name} (bypassed)" if i in gone else f"{name}{_kept(fate, i)}"
        for i, name in zip(block.vertices, names, strict=True)
    ]
    lines = [", ".join(shown), f"gives {figures.shape(block.shape, block.batched)}"]
    if block.params or block.macs:
        lines.append(f"{figures.count(block.params)} parameters, {figures.count(block.macs)} MACs")
    if fate.dead:
        lines.append("removed")
    elif fate.forwarded:
        lines.append("passes its one remaining input on")
    lines += [_of_unit(facts, unit) for unit in units_of(graph, block, members)[:6]]
    return "\n".join(lines)


def _of_unit(facts: Facts, unit: int) -> str:
    name = facts.graph.units[unit].name
    words = [f"unit {name}"]
    if facts.mask.bits[unit]:
        words.append("removed")
    elif name in facts.protected:
        words.append("protected")
    if unit in facts.alone:
        words.append(f"alone: loss {figures.plain(facts.alone[unit])}")
    return " · ".join(words)
