"""Every unit, by what removing it alone does."""

from ..values.markup import Markup, join, row, table, tag
from . import numbers
from .facts import Facts
from .terms import fold, scrolled, term

HEAD = ("Unit", "Kind", "Parameters", "MACs", "Loss without it", "Status")


def units(facts: Facts) -> Markup:
    """The section with the units' table."""
    rows = (_row(facts, unit) for unit in _order(facts))
    return fold(
        "units",
        "Units",
        f"all {len(facts.graph.units)}, most damaging first",
        _intro(facts),
        tag("p", _protected(facts), class_="lead") if facts.protected else None,
        scrolled(
            "Table of units", table([*map(term, HEAD)], rows, class_="units"), class_="card tall"
        ),
    )


def _intro(facts: Facts) -> str:
    total, known = len(facts.graph.units), len(facts.alone)
    text = (
        "A unit is the smallest thing that can be removed: a connection or a whole branch (edge), "
        "or a layer that is bypassed (layer). Parameters and MACs are what removing it alone saves."
    )
    if not known:
        return f"{text} No unit has been measured alone yet."
    seen = "each of them" if known == total else f"{known} of {total}"
    unpruned = numbers.plain(facts.unpruned)
    return (
        f"{text} The loss without a unit was measured for {seen}; the unpruned network's loss on "
        f"the same data is {unpruned}."
    )


def _protected(facts: Facts) -> str:
    names = [unit.label for unit in facts.graph.units if unit.name in facts.protected]
    one = len(names) == 1
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (
        f"{len(names)} unit{' is' if one else 's are'} protected: removing "
        f"{'it' if one else 'any one of them'} alone already costs more than a whole network "
        f"pruned to the budget does, so the search keeps {'it' if one else 'them'} ({shown})."
    )


def _order(facts: Facts) -> list[int]:
    return sorted(
        range(len(facts.graph.units)), key=lambda i: (-facts.alone.get(i, float("-inf")), i)
    )


def _row(facts: Facts, index: int) -> Markup:
    unit, removed = facts.graph.units[index], facts.mask.bits[index]
    status = "removed" if removed else "protected" if unit.name in facts.protected else ""
    cells = (
        tag("span", unit.label, title=unit.name),
        unit.kind,
        numbers.count(unit.cost.params),
        numbers.count(unit.cost.macs),
        _bar(facts, index),
        tag("span", status, class_=f"status {status}") if status else None,
    )
    return row(cells, class_="removed" if removed else None)


def _bar(facts: Facts, index: int) -> Markup | str:
    """The loss with the unit removed, and a bar as long as the damage beyond the unpruned loss."""
    loss = facts.alone.get(index)
    if loss is None:
        return numbers.DASH
    base = facts.unpruned if facts.unpruned is not None else min(facts.alone.values())
    worst = max(facts.alone.values()) - base
    part = max(loss - base, 0.0) / worst if worst > 0 else 0.0
    bar = tag("i", style=f"width:{100 * part:.1f}%")
    text, track = numbers.plain(loss), tag("span", bar, class_="bar", aria_hidden="true")
    return join([tag("span", text), track])
