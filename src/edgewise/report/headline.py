"""The top of the page: what was chosen, in one sentence, and what it costs and gains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..pruning.plan import Measured, Plan
from . import numbers
from .facts import Facts
from .markup import Markup, tag

SPLITS = {
    "report": "untouched data",
    "verify": "the data that decided among the finalists",
    "search": "the data that guided the search",
}
COSTS = (
    ("units", "Units", numbers.count),
    ("params", "Parameters", numbers.count),
    ("macs", "MACs", numbers.count),
    ("activation_bytes", "Activations", numbers.size),
    ("weight_bytes", "Weights", numbers.size),
)


def headline(facts: Facts, title: str) -> Markup:
    """Title, sentence, tiles and the two tables."""
    return tag(
        "header",
        tag("p", "Pruning report", class_="kicker"),
        tag("h1", title),
        tag("p", sentence(facts), class_="sentence"),
        _tiles(facts),
        tag("div", _costs(facts), _measurements(facts), class_="tables"),
        _promises(facts),
    )


def sentence(facts: Facts) -> str:
    """What was chosen, in plain words."""
    plan, total = facts.plan, len(facts.graph.units)
    if plan is None:
        done = len(facts.evaluations)
        seen = f"{done} evaluation{'s' * (done != 1)} so far" if done else "nothing measured yet"
        return f"No plan yet: {total} units can be removed, {seen}."
    parts = f"{len(plan.removed)} of {total} units removed: {_saved(plan)}"
    split = next((s for s in SPLITS if s in plan.measured), None)
    if split is None:
        return f"{parts}. The result is not measured yet."
    return f"{parts}; {_quality(plan.measured[split])} on {SPLITS[split]}{_healed(facts)}."


def _saved(plan: Plan) -> str:
    def fewer(before: float, after: float, noun: str) -> str:
        return f"{numbers.share(1 - after / before if before else 0)} fewer {noun}"

    macs = fewer(plan.before.macs, plan.after.macs, "MACs")
    return f"{macs}, {fewer(plan.before.params, plan.after.params, 'parameters')}"


def _quality(measured: Measured) -> str:
    name, value, unpruned = _first(measured)
    return f"{name} {value} (unpruned {unpruned})"


def _first(measured: Measured) -> tuple[str, str, str]:
    """The first metric, or the loss where there is none: name, value, unpruned value."""
    for name, value in measured.metrics.items():
        before = measured.unpruned_metrics.get(name)
        return name, numbers.metric(name, value), numbers.metric(name, before)
    return "loss", numbers.plain(measured.loss), numbers.plain(measured.unpruned_loss)


def _healed(facts: Facts) -> str:
    if facts.outcome.healed is None:
        return ""
    return f", {_first(facts.outcome.healed)[1]} after healing"


def _tiles(facts: Facts) -> Markup | None:
    plan = facts.plan
    if plan is None:
        return None
    tiles = [
        ("Units removed", str(len(plan.removed)), f"of {len(facts.graph.units)}"),
        (
            "MACs",
            numbers.change(plan.before.macs, plan.after.macs),
            f"{numbers.count(plan.after.macs)} left",
        ),
        (
            "Parameters",
            numbers.change(plan.before.params, plan.after.params),
            f"{numbers.count(plan.after.params)} left",
        ),
    ]
    if facts.latency_ms:
        before, after = facts.latency_ms
        tiles.append(("Latency", numbers.change(before, after), f"{after:.3g} ms left"))
    split = next((s for s in SPLITS if s in plan.measured), None)
    measured = facts.outcome.healed or (plan.measured[split] if split else None)
    if measured:
        name, value, before_ = _first(measured)
        note = " after healing" if facts.outcome.healed else ""
        tiles.append((f"{name.capitalize()}{note}", value, f"unpruned {before_}"))
    return tag(
        "dl",
        (
            tag("div", tag("dt", a), tag("dd", b), tag("dd", c, class_="note"), class_="tile")
            for a, b, c in tiles
        ),
        class_="tiles",
    )


def _costs(facts: Facts) -> Markup:
    before, plan = facts.before, facts.plan
    if plan is None:
        whole = [(label, show(getattr(before, name))) for name, label, show in COSTS]
        return _table("Cost", ("For one example", "Unpruned"), whole)
    rows = [
        _compared(label, getattr(before, name), getattr(plan.after, name), show)
        for name, label, show in COSTS
    ]
    if facts.latency_ms:
        a, b = facts.latency_ms
        rows.append(("Latency, ms", f"{a:.3g}", f"{b:.3g}", numbers.change(a, b)))
    head = ("For one example", "Unpruned", "Pruned", "Change")
    return _table("Cost", head, rows, f"{plan.latency}." if plan.latency else None)


def _promises(facts: Facts) -> Markup | None:
    """What is promised of the plan, one sentence each."""
    promises = facts.plan.promises if facts.plan else ()
    if not promises:
        return None
    body = tag("ul", (tag("li", promise) for promise in promises))
    return tag(
        "section", tag("h2", "What is certain", id="certain"), body, aria_labelledby="certain"
    )


def _compared(label: str, before: int, after: int, show: Callable[[float], str]) -> tuple[str, ...]:
    return label, show(before), show(after), numbers.change(before, after)


def _measurements(facts: Facts) -> Markup | None:
    rows = list(_rows(facts))
    if not rows:
        return None
    metrics = list(dict.fromkeys(name for _, m in rows for name in m.metrics))
    head = ("Measured on", "Loss", *(name.capitalize() for name in metrics), "Examples")
    body = [
        (
            label,
            _pair(
                numbers.plain(m.loss),
                numbers.plain(m.unpruned_loss),
                _bracket(m.interval, numbers.plain),
            ),
            *(
                _pair(
                    numbers.metric(n, m.metrics.get(n)),
                    numbers.metric(n, m.unpruned_metrics.get(n)),
                    _bracket(m.metric_intervals.get(n), partial(numbers.metric, n)),
                )
                for n in metrics
            ),
            numbers.count(m.samples),
        )
        for label, m in rows
    ]
    note = "Small figures: the unpruned network on the same data."
    if any(m.interval for _, m in rows):
        note += " Brackets: 95 % intervals, bootstrap of the mean loss, exact for accuracy."
        note += " Only the report split had no part in the choice."
    return _table("Loss and metrics", head, body, note)


def _rows(facts: Facts) -> Iterator[tuple[str, Measured]]:
    measured = facts.plan.measured if facts.plan else {}
    for split in ("search", "verify", "report"):
        if split in measured:
            yield f"{split} split", measured[split]
    for split in measured:
        if split not in SPLITS:
            yield split, measured[split]
    if facts.outcome.healed:
        yield "after healing", facts.outcome.healed


def _bracket(interval: tuple[float, float] | None, show: Callable[[float], str]) -> str | None:
    if interval is None:
        return None
    low, high = interval
    return f"[{show(low)}, {show(high)}]"


def _pair(value: str, unpruned: str, interval: str | None = None) -> list[Markup | None]:
    return [
        tag("span", value),
        tag("small", interval) if interval else None,
        tag("small", f"unpruned {unpruned}"),
    ]


def _table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[tuple[object, ...]],
    note: str | None = None,
) -> Markup:
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", (tag("th", name, scope="col") for name in head))),
        tag(
            "tbody",
            (
                tag("tr", tag("th", row[0], scope="row"), (tag("td", cell) for cell in row[1:]))
                for row in rows
            ),
        ),
    )
    scroll = tag("div", table, class_="scroll", tabindex=0, role="group", aria_label=caption)
    return tag("div", scroll, tag("p", note, class_="note") if note else None, class_="card")
