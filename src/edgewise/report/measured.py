"""Every cost and every score, before and after."""

from collections.abc import Callable, Iterator

from ..pruning.plan import Measured
from ..values.markup import Child, Markup, table, tag
from . import numbers
from .facts import Facts
from .first import SPLITS, balance
from .terms import fold, scrolled, term

COSTS: tuple[tuple[str, str, numbers.Show], ...] = (
    ("units", "Units", numbers.count),
    ("params", "Parameters", numbers.count),
    ("macs", "MACs", numbers.count),
    ("activation_bytes", "Activations", numbers.size),
    ("weight_bytes", "Size of weights", numbers.size),
)


def measured(facts: Facts) -> Markup:
    """The tables of costs and scores, and what is promised of the plan."""
    plan = facts.plan
    promises = plan.promises if plan else ()
    return fold(
        "measured",
        "Costs and scores",
        "everything counted and measured, before and after",
        balance(facts) if plan else "Nothing is chosen yet: what the unpruned network takes.",
        tag("div", _costs(facts), _scores(facts), class_="tables"),
        tag("h3", "What is certain") if promises else None,
        tag("ul", (tag("li", promise) for promise in promises), class_="says")
        if promises
        else None,
    )


def _costs(facts: Facts) -> Markup:
    plan, head = facts.plan, ["For one example", "Unpruned", "Pruned", "Change"]
    after = plan.after if plan else facts.before
    rows = [
        _compared(label, getattr(facts.before, name), getattr(after, name), show)
        for name, label, show in COSTS
    ]
    if facts.latency_ms:
        rows.append(_compared("Latency", *facts.latency_ms, lambda ms: f"{ms:.3g} ms"))
    wide = len(head) if plan else 2
    note = f"{plan.latency}." if plan and plan.latency else None
    return _card("Cost", head[:wide], [row[:wide] for row in rows], note)


def _compared(label: str, before: float, after: float, show: numbers.Show) -> tuple[Child, ...]:
    return term(label), show(before), show(after), numbers.change(before, after)


def _scores(facts: Facts) -> Markup | None:
    rows = list(_rows(facts))
    if not rows:
        return None
    metrics = list(dict.fromkeys(name for _, m in rows for name in m.metrics))
    head = ("Measured on", term("Loss"), *(name.capitalize() for name in metrics), "Examples")
    body = [
        (
            term(label),
            _pair(m.loss, m.unpruned_loss, m.interval, numbers.plain),
            *(
                _pair(m.metrics.get(n), m.unpruned_metrics.get(n), m.metric_intervals.get(n),
                      lambda value, n=n: numbers.metric(n, value))  # type: ignore[misc]
                for n in metrics
            ),
            numbers.count(m.samples),
        )
        for label, m in rows
    ]  # fmt: skip
    note = "Small figures: the unpruned network on the same data."
    if any(m.interval for _, m in rows):
        note += " Brackets: 95 % intervals, bootstrap of the mean loss, exact for accuracy."
        note += " Only the report split had no part in the choice."
    return _card("Loss and metrics", head, body, note)


def _rows(facts: Facts) -> Iterator[tuple[str, Measured]]:
    found = facts.plan.measured if facts.plan else {}
    for split in (*(s for s in reversed(SPLITS) if s in found), *(found.keys() - SPLITS.keys())):
        yield f"{split} split" if split in SPLITS else split, found[split]
    if facts.outcome.healed:
        yield "after healing", facts.outcome.healed


def _pair(
    value: float | None,
    unpruned: float | None,
    interval: tuple[float, float] | None,
    show: Callable[[float | None], str],
) -> list[Markup | None]:
    return [
        tag("span", show(value)),
        tag("small", f"[{show(interval[0])}, {show(interval[1])}]") if interval else None,
        tag("small", f"unpruned {show(unpruned)}"),
    ]


def _card(title: str, head: Child, rows: Child, note: str | None) -> Markup:
    shown = scrolled(title, table(head, rows, title))  # type: ignore[arg-type]
    return tag("div", shown, tag("p", note, class_="note") if note else None, class_="card")
