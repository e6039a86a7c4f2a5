"""The study behind the plan: predictions, progress and failures."""

from __future__ import annotations

from collections import Counter

from ..records import Evaluation
from . import figures
from .charts import legend, line_key, predicted, progress
from .facts import Facts
from .markup import Markup, tag

SHOWN = 50
LONGEST = 400


def predictions(facts: Facts) -> Markup | None:
    """Predicted against measured loss, where something was predicted."""
    chart = predicted(facts)
    if chart is None:
        return None
    used = [e for e, *_ in facts.foreseen]
    return tag(
        "section",
        tag("h2", "Predicted and measured loss", id="predicted"),
        tag(
            "p",
            "Each mark is a mask whose loss the surrogate predicted before it was measured. On the "
            "diagonal the prediction was right; above it, the network was worse than predicted.",
            class_="lead",
        ),
        tag(
            "div",
            chart,
            tag("div", _precision(facts.foreseen), legend(used, _deviation_key(used))),
            class_="pair",
        ),
        aria_labelledby="predicted",
    )


def _precision(used: list[tuple[Evaluation, float, float]]) -> Markup:
    """How far off the predictions were, in words."""
    errors = sorted(abs(guess - loss) / abs(loss) for _, guess, loss in used if loss)
    middle = figures.share(errors[len(errors) // 2]) if errors else figures.DASH
    text = (
        f"{_counted(len(used), 'prediction')}; the median error is {middle} of the measured loss."
    )
    within = [abs(guess - loss) <= e.deviation for e, guess, loss in used if e.deviation]
    if not within:
        return tag("p", text)
    return tag(
        "p",
        f"{text} In {figures.share(sum(within) / len(within))} of the cases the measured loss lay "
        f"within one standard deviation (68{figures.THIN}% would be well calibrated).",
    )


def _deviation_key(used: list[Evaluation]) -> list[Markup]:
    if not any(e.deviation for e in used):
        return []
    return [line_key("deviation", "one standard deviation of the prediction")]


def course(facts: Facts) -> Markup:
    """Every evaluation in order, and the failures."""
    return tag(
        "section",
        tag("h2", "Evaluations", id="evaluations"),
        tag("p", _intro(facts), class_="lead"),
        progress(facts),
        legend([e for _, e, _ in facts.drawn], _keys(facts)) if facts.drawn else None,
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
    text = f"{_counted(len(facts.evaluations), 'evaluation')} in {_duration(seconds)}: {splits}."
    if not facts.search:
        return text
    return f"{text} The plot shows the search split in order."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _keys(facts: Facts) -> list[Markup]:
    keys = []
    if facts.best:
        within = f"within {facts.budget}" if facts.budget else "with something removed"
        keys.append(line_key("best", f"best so far {within}"))
    if facts.unpruned is not None:
        keys.append(line_key("level", "unpruned"))
    return keys


def _failures(facts: Facts) -> Markup | None:
    failures = facts.failures
    if not failures:
        return None
    more = len(failures) - SHOWN
    head = ("Number", "Split", "Origin", "Status", "Removed", "Reason")
    table = tag(
        "table",
        tag("caption", _counted(len(failures), "failed evaluation")),
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
        tag("td", figures.count(e.mask.count("1"))),
        tag("td", reason, class_="reason"),
    )
