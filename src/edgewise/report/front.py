"""What is reachable at other budgets: the front, and how each of its points is made a plan."""

from collections.abc import Iterator

from ..search import Point
from ..values.markup import Child, Markup, table, tag
from ..values.quantities import limit_text
from . import numbers
from .charts import charts
from .charts.canvas import canvas
from .facts import Facts
from .terms import command, fold, scrolled, term


def front(facts: Facts) -> Markup | None:
    """The section with the front, where one was computed."""
    points = facts.insight.front
    if not points:
        return None
    head = [*map(term, ("MACs", "Parameters", "Predicted loss", "Measured loss")), "Units removed"]
    head += ["How to get it"] if facts.insight.again else []
    rows = (list(_cells(facts, point)) for point in points)
    return fold(
        "pareto",
        "Other budgets",
        f"what would be lost at {numbers.counted(len(points), 'other size')}",
        "The least loss that the surrogate thinks reachable at each cost. A prediction of a mask "
        "that was chosen for it is often too good: run that budget before you believe it.",
        canvas(charts.pareto(facts, points)),
        scrolled("Other budgets", table(head, rows, class_="sizes"), class_="card"),
    )


def _cells(facts: Facts, point: Point) -> Iterator[Child]:
    for name in ("macs", "params"):
        left, whole = getattr(point.cost, name), getattr(facts.before, name)
        yield f"{numbers.count(left)} ({numbers.change(whole, left)})"
    yield f"{numbers.plain(point.predicted)} ± {numbers.plain(point.deviation)}"
    yield numbers.plain(point.measured)
    names = ", ".join(facts.graph.units[unit].label for unit in point.mask.removed)
    yield tag("abbr", len(point.mask.removed), title=names or "nothing", tabindex=0)
    if facts.insight.again:
        limits = " ".join(f"{k}={limit_text(v)}" for k, v in point.budget.limits.items())
        yield command(facts.insight.again.replace("{limits}", limits))
