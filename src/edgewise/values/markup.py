"""HTML and SVG elements as values: text is escaped unless it is markup already."""

import html
from collections.abc import Iterable, Mapping, Sequence

Child = object
Attribute = str | int | float | bool | None

LEFT = "text-align: left"  # whatever the notebook's own style is
VOID = frozenset({"br", "hr", "meta", "link", "input", "col"})


class Markup(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def tag(element: str, *children: Child, **attributes: Attribute) -> Markup:
    """One element with its children.

    Args:
        element: its name, for example "td".
        children: markup (taken as it is), anything else (escaped), None (left out), or an
            iterable of these.
        attributes: "_" becomes "-" and a trailing one is dropped (`class_`); None and False leave
            the attribute out, True writes it bare.

    Examples:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    opening = f"<{element}{''.join(map(_attribute, attributes, attributes.values()))}>"
    if element in VOID:
        return Markup(opening)
    return Markup(f"{opening}{join(children)}</{element}>")


def table(
    head: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    caption: Child = None,
    **attributes: Attribute,
) -> Markup:
    """A table whose first column names its rows; a row may be markup of `row` already."""
    return tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", (tag("th", name, scope="col") for name in head))) if head else None,
        tag("tbody", (cells if isinstance(cells, Markup) else row(cells) for cells in rows)),
        **attributes,
    )


def row(cells: Sequence[Child], **attributes: Attribute) -> Markup:
    """A row of a table."""
    first, *others = cells
    head = tag("th", first, scope="row")
    return tag("tr", head, (tag("td", cell) for cell in others), **attributes)


def card(title: str, facts: Mapping[str, Child]) -> Markup:
    """What a notebook shows of a value: its title, and what there is to know of it."""
    kept = {name: fact for name, fact in facts.items() if fact not in (None, "")}
    rows = [(_left(name[:1].upper() + name[1:]), _left(fact)) for name, fact in kept.items()]
    return table((), rows, tag("div", tag("b", title), style=LEFT))


def _left(text: Child) -> Markup:
    """Text at the left of its cell."""
    return tag("div", text, style=f"{LEFT}; max-width: 60em")


def join(children: Iterable[Child]) -> Markup:
    """Children one after another."""
    return Markup("".join(map(_text, children)))


def escape(value: object) -> Markup:
    """A value as text that is safe between tags and inside quoted attributes."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(text.replace("\0", "�")))


def raw(text: str) -> Markup:
    """Text of our own files (style, script) that stands as it is."""
    return Markup(text)


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str | bytes):
        return join(child)
    return escape(child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(number(value) if isinstance(value, float) else value)}"'
