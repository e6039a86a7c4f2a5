"""The study behind the plan: predictions, progress and failures."""

from collections import Counter

from ..evaluation.records import Evaluation, whole_of
from ..values.markup import Markup, table, tag
from . import numbers
from .charts import charts
from .charts.canvas import canvas
from .facts import Facts
from .terms import fold, scrolled

SHOWN = 50
LONGEST = 400


def predictions(facts: Facts) -> Markup | None:
    """Predicted against measured loss, where something was predicted."""
    if not facts.foreseen:
        return None
    return fold(
        "predicted",
        "Predicted and measured loss",
        numbers.counted(len(facts.foreseen), "prediction"),
        "Each mark is a mask whose loss the surrogate predicted before it was measured. On the "
        "diagonal the prediction was right; above it, the network was worse than predicted. Bars: "
        f"one standard deviation of the prediction. {charts.precision(facts.foreseen)}",
        canvas(charts.predicted(facts)),
    )


def comparison(facts: Facts) -> Markup | None:
    """Best loss against evaluations of several methods, where they were compared."""
    if not facts.insight.histories:
        return None
    return fold(
        "methods",
        "Compared with other methods",
        ", ".join(facts.insight.histories),
        "The lowest loss within the budget after each evaluation on the search split, for equal "
        "data. A method that measures one mask within the budget is a point.",
        canvas(charts.methods(facts.insight.histories)),
    )


def course(facts: Facts) -> Markup:
    """Every evaluation in order, and the failures."""
    failed = f", {len(facts.failures)} failed" if facts.failures else ""
    return fold(
        "evaluations",
        "Evaluations",
        f"{len(facts.evaluations)} in all{failed}",
        _intro(facts),
        canvas(charts.progress(facts)) if facts.drawn else None,
        _failures(facts),
    )


def _intro(facts: Facts) -> str:
    if not facts.evaluations:
        return "Nothing has been evaluated yet."
    counts = Counter(whole_of(e.split) for e in facts.evaluations)
    splits = ", ".join(
        f"{counts[s]} on the {s} split" for s in ("search", "verify", "report") if counts[s]
    )
    seconds = sum(e.seconds for e in facts.evaluations)
    count = numbers.counted(len(facts.evaluations), "evaluation")
    text = f"{count} in {numbers.period(seconds)}: {splits}."
    if not facts.search:
        return text
    some = counts["search"] - len(facts.search)
    text += f" {some} of them saw some search examples only, and are not drawn." if some else ""
    return f"{text} The plot shows the search split in order."


def _failures(facts: Facts) -> Markup | None:
    failures = facts.failures
    if not failures:
        return None
    more = len(failures) - SHOWN
    head = ("Number", "Split", "Origin", "Status", "Removed", "Reason")
    caption = numbers.counted(len(failures), "failed evaluation")
    rows = table(head, map(_failure, failures[:SHOWN]), caption, class_="failures")
    note = tag("p", f"{more} more are in the study.", class_="note") if more > 0 else None
    return tag("div", scrolled("Failures", rows), note, class_="card")


def _failure(e: Evaluation) -> tuple[str, ...]:
    reason = e.error or "no reason recorded"
    reason = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}…"
    return str(e.number), e.split, e.origin, e.status, numbers.count(e.mask.count("1")), reason
