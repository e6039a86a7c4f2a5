"""The study behind the plan: predictions, progress and failures."""

from __future__ import annotations

from collections import Counter

from ..evaluation.records import Evaluation
from . import numbers
from .charts import charts
from .charts.canvas import canvas
from .facts import Facts
from .markup import Markup, tag

SHOWN = 50
LONGEST = 400


def predictions(facts: Facts) -> Markup | None:
    """Predicted against measured loss, where something was predicted."""
    if not facts.foreseen:
        return None
    return tag(
        "section",
        tag("h2", "Predicted and measured loss", id="predicted"),
        tag(
            "p",
            "Each mark is a mask whose loss the surrogate predicted before it was measured. On the "
            "diagonal the prediction was right; above it, the network was worse than predicted. "
            "Bars: one standard deviation of the prediction.",
            class_="lead",
        ),
        tag("p", charts.precision(facts.foreseen), class_="lead"),
        canvas(charts.predicted(facts)),
        aria_labelledby="predicted",
    )


def comparison(facts: Facts) -> Markup | None:
    """Best loss against evaluations of several methods, where they were compared."""
    if not facts.insight.histories:
        return None
    return tag(
        "section",
        tag("h2", "Compared with other methods", id="methods"),
        tag(
            "p",
            "The lowest loss within the budget after each evaluation on the search split, for "
            "equal data. A method that measures one mask within the budget is a point.",
            class_="lead",
        ),
        canvas(charts.methods(facts.insight.histories)),
        aria_labelledby="methods",
    )


def course(facts: Facts) -> Markup:
    """Every evaluation in order, and the failures."""
    return tag(
        "section",
        tag("h2", "Evaluations", id="evaluations"),
        tag("p", _intro(facts), class_="lead"),
        canvas(charts.progress(facts)) if facts.drawn else None,
        _failures(facts),
        aria_labelledby="evaluations",
    )


def _intro(facts: Facts) -> str:
    if not facts.evaluations:
        return "Nothing has been evaluated yet."
    counts = Counter(e.split for e in facts.evaluations)
    splits = ", ".join(
        f"{counts[s]} on the {s} split" for s in ("search", "verify", "report") if counts[s]
    )
    seconds = sum(e.seconds for e in facts.evaluations)
    count = numbers.counted(len(facts.evaluations), "evaluation")
    text = f"{count} in {_duration(seconds)}: {splits}."
    if not facts.search:
        return text
    return f"{text} The plot shows the search split in order."


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _failures(facts: Facts) -> Markup | None:
    failures = facts.failures
    if not failures:
        return None
    more = len(failures) - SHOWN
    head = ("Number", "Split", "Origin", "Status", "Removed", "Reason")
    table = tag(
        "table",
        tag("caption", numbers.counted(len(failures), "failed evaluation")),
        tag("thead", tag("tr", (tag("th", name, scope="col") for name in head))),
        tag("tbody", map(_failure, failures[:SHOWN])),
        class_="failures",
    )
    note = tag("p", f"{more} more are in the study.", class_="note") if more > 0 else None
    box = tag("div", table, class_="scroll", tabindex=0, role="group", aria_label="Failures")
    return tag("div", box, note, class_="card")


def _failure(e: Evaluation) -> Markup:
    reason = e.error or "no reason recorded"
    reason = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}…"
    return tag(
        "tr",
        tag("th", str(e.number), scope="row"),
        tag("td", e.split),
        tag("td", e.origin),
        tag("td", e.status),
        tag("td", numbers.count(e.mask.count("1"))),
        tag("td", reason, class_="reason"),
    )
