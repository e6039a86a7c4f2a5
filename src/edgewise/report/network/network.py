"""The section that draws the network, and the drawing by itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from ...values.files import write_text
from ...values.markup import Markup, raw, tag
from ..facts import Facts
from ..terms import fold
from .blocks import Fate
from .svg import Sheet, diagram, kind, strike

STYLES = ("style.css", "network.css")


def network(facts: Facts) -> Markup:
    """The section that draws the graph."""
    sheet = Sheet(facts)
    return fold(
        "network",
        "The network",
        "what stays and what is gone, drawn",
        _caption(sheet),
        tag("div", _legend(sheet.after) if facts.plan else None, _buttons(), class_="tools"),
        tag(
            "div",
            tag(
                "div",
                diagram(sheet),
                class_="stage",
                tabindex=0,
                role="group",
                aria_label="Network drawing: + and - zoom, 0 fits, arrows walk over boxes",
            ),
            class_="figure",
        ),
    )


@dataclass(frozen=True)
class Drawing:
    """The network drawn as SVG, which notebooks show.

    Args:
        svg: the drawing.

    Examples:
        >>> path = study.plot.graph().save("network.svg")
    """

    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write the drawing to a file."""
        write_text(Path(path), self.svg)
        return Path(path)


def drawn(sheet: Sheet) -> Drawing:
    """The drawing by itself, with the page's light colours."""
    here = files("edgewise.report")
    page, rules = (here.joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    light = dict(re.findall(r"--([\w-]+): light-dark\((#\w+)", page))
    style = re.sub(r"var\(--([\w-]+)\)", lambda name: light[name[1]], rules)
    font = ".network { font-family: sans-serif; }"
    inner = diagram(sheet).removeprefix("<svg").removesuffix("</svg>")
    start = f'<svg xmlns="http://www.w3.org/2000/svg"{inner}'
    return Drawing(f"{start}{tag('style', raw(style + font))}</svg>")


def _caption(sheet: Sheet) -> str:
    text = (
        f"{len(sheet.facts.graph.vertices)} operators drawn as {len(sheet.blocks)} boxes: chains "
        "of operators that live and die together are one box. Data flows downwards, and from the "
        "foot of a column to the head of the next."
    )
    if sheet.facts.plan is None:
        return f"{text} Nothing is chosen yet, so everything is drawn alive."
    return text


def _legend(after: Sequence[Fate]) -> Markup:
    seen = set(map(kind, after))
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
                        strike(name, 1, 1, 27, 13),
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
