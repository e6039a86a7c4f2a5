"""What is reachable at other budgets: the front, and how each of its points is made a plan."""

from __future__ import annotations

from collections.abc import Sequence

from ..search import Point
from ..values.markup import Markup, tag
from ..values.quantities import limit_text
from . import numbers
from .charts import charts
from .charts.canvas import canvas
from .facts import Facts
from .terms import definitions, fold


def front(facts: Facts) -> Markup | None:
    """The section with the front, where one was computed."""
    points = facts.insight.front
    if not points:
        return None
    first = _nearest(facts)
    return fold(
        "pareto",
        "Other budgets",
        f"what would be lost at {numbers.counted(len(points), 'other size')}",
        "The least loss that the surrogate thinks reachable at each cost. A prediction of a mask "
        "that was chosen for it is often too good: run that budget before you believe it. Choose a "
        "point to see what it removes and how it is made.",
        canvas(charts.pareto(facts, points)),
        _choice(points, first),
        (_card(facts, i, point, hidden=i != first) for i, point in enumerate(points)),
    )


def _nearest(facts: Facts) -> int:
    """The point that costs about what the plan does; else the first."""
    points = facts.insight.front
    if facts.plan is None:
        return 0
    name = next(iter(points[0].budget.limits))
    cost = getattr(facts.plan.after, name)
    return min(range(len(points)), key=lambda i: abs(getattr(points[i].cost, name) - cost))


def _choice(points: Sequence[Point], first: int) -> Markup:
    options = (
        tag("option", _name(point), value=i, selected=i == first) for i, point in enumerate(points)
    )
    return tag("label", "Point ", tag("select", options, data_choose="front"), class_="choose")


def _name(point: Point) -> str:
    name = next(iter(point.budget.limits))
    left = numbers.quantity(name, getattr(point.cost, name))
    return f"{left}, predicted loss {numbers.plain(point.predicted)}"


def _card(facts: Facts, index: int, point: Point, hidden: bool) -> Markup:
    units = [facts.graph.units[unit].name for unit in point.mask.removed]
    rows = {
        "Left": _left(facts, point),
        "Predicted loss": f"{numbers.plain(point.predicted)} ± {numbers.plain(point.deviation)}",
        "Measured loss": numbers.plain(point.measured),
        "Removed": ", ".join(units) or "nothing",
    }
    limits = " ".join(f"{k}={limit_text(v)}" for k, v in point.budget.limits.items())
    command = facts.insight.again.replace("{limits}", limits)
    return tag(
        "div",
        definitions(rows),
        tag("pre", command, tabindex=0) if command else None,
        class_="card point",
        data_point=index,
        aria_live="polite",
        hidden=hidden,
    )


def _left(facts: Facts, point: Point) -> str:
    cost, whole = point.cost, facts.before
    parts = [
        f"{numbers.quantity(name, getattr(cost, name))} "
        f"({numbers.change(getattr(whole, name), getattr(cost, name))})"
        for name in ("macs", "params")
    ]
    return ", ".join(parts)
