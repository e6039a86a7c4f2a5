"""The section that draws the network; repeated blocks are one box where it would be long."""

from __future__ import annotations

from collections.abc import Sequence

from ...values.markup import Markup, tag
from ..facts import Facts
from ..terms import fold
from .blocks import Fate
from .repeats import Run, closed, opened
from .svg import Sheet, diagram, kind, panel, placed, strike

LONG = 1000.0  # a drawing higher than this has its repeated blocks closed


def network(facts: Facts) -> Markup:
    """The section that draws the graph."""
    sheet = Sheet(facts)
    found = _shown_closed(sheet)
    return fold(
        "network",
        "The network",
        "what stays and what is gone, drawn",
        _caption(sheet, found),
        tag(
            "div",
            _legend(sheet.after) if facts.plan else None,
            _buttons(bool(found)),
            class_="tools",
        ),
        tag("div", _stage(sheet, found), class_="figure"),
    )


def _shown_closed(sheet: Sheet) -> tuple[Run, ...]:
    """The runs that are one box: none where everything fits."""
    high = placed(sheet, closed(sheet.blocks, sheet.links, ())).height > LONG
    return sheet.runs if high else ()


def _stage(sheet: Sheet, found: Sequence[Run]) -> Markup:
    """The drawing, and below it the blocks of each run, hidden until it is opened."""
    return tag(
        "div",
        diagram(sheet, closed(sheet.blocks, sheet.links, found), ""),
        (_panel(sheet, run) for run in found),
        class_="stage",
        tabindex=0,
        role="group",
        aria_label="Network drawing: + and - zoom, 0 fits, arrows walk over boxes",
    )


def _panel(sheet: Sheet, run: Run) -> Markup:
    name = panel(run)
    return tag(
        "div",
        tag("h3", f"{run.first} to {run.last}"),
        diagram(sheet, opened(sheet.blocks, sheet.links, run), f"{name}-"),
        id=name,
        class_="opened",
        hidden=True,
    )


def _caption(sheet: Sheet, found: Sequence[Run]) -> str:
    text = (
        f"{len(sheet.facts.graph.vertices)} operators drawn as {len(sheet.blocks)} boxes: chains "
        "of operators that live and die together are one box. Data flows downwards, and from the "
        "foot of a column to the head of the next."
    )
    if found:
        text += (
            " Modules in a row with the same structure, of which nothing is removed, are one box "
            "with a double border; it opens below the drawing."
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


def _buttons(closed: bool) -> Markup:
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
        tag("button", "Open all", type="button", data_all=True) if closed else None,
        class_="zoom",
    )
