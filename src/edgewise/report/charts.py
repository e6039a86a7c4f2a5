"""The page's plots as inline SVG: predicted against measured loss, and the course of a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..records import Evaluation
from . import figures
from .facts import Facts
from .markup import Markup, number, tag
from .scales import Scale, fitted

# origin → (class, mark); colour and form both tell them apart
ORIGINS = {
    "unpruned": "diamond",
    "leave-one-out": "ring",
    "sampled": "dot",
    "proposed": "triangle",
    "single pick": "square",
    "finalist": "star",
}
MARKS = {
    "dot": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0",
    "ring": "M-2.8 0a2.8 2.8 0 1 0 5.6 0a2.8 2.8 0 1 0 -5.6 0",
    "diamond": "M0 -5L5 0L0 5L-5 0Z",
    "triangle": "M0 -4.2L4 3L-4 3Z",
    "square": "M-3.2 -3.2H3.2V3.2H-3.2Z",
    "star": "M0 -5.5L1.5 -1.7L5.5 -1.7L2.3 .8L3.5 4.8L0 2.4L-3.5 4.8L-2.3 .8L-5.5 -1.7L-1.5 -1.7Z",
    "cross": "M-3 -3L3 3M-3 3L3 -3",
}


def predicted(facts: Facts) -> Markup | None:
    """Predicted against measured loss; None where nothing was predicted."""
    points = facts.foreseen
    if not points:
        return None
    left, top, side, width = 64.0, 14.0, 380.0, 470.0
    x = fitted([v for _, *pair in points for v in pair], left, left + side)
    y = Scale(x.low, x.high, top + side, top, x.log)
    return _chart(
        f"Predicted against measured loss of {len(points)} evaluations",
        (width, top + side + 52),
        [
            _grid(x, y, "predicted loss", "measured loss"),
            tag("line", x1=left, y1=top + side, x2=left + side, y2=top, class_="diagonal"),
            tag("g", (_deviation(e, p, x, y(v)) for e, p, v in points), class_="deviations"),
            tag("g", (_point(facts, e, x(p), y(v)) for e, p, v in points)),
        ],
    )


def _deviation(e: Evaluation, middle: float, x: Scale, y: float) -> Markup | None:
    """One standard deviation of the prediction to both sides."""
    if not e.deviation or not math.isfinite(e.deviation):
        return None
    return tag("line", x1=x(middle - e.deviation), x2=x(middle + e.deviation), y1=y, y2=y)


def progress(facts: Facts) -> Markup | None:
    """Every evaluation's loss in order, and the best within the budget so far."""
    points = facts.drawn
    if not points:
        return None
    left, top, right, bottom = 64.0, 14.0, 1080.0, 330.0
    x = Scale(-0.5, max(len(facts.search) - 0.5, 0.5), left, right)
    losses = [loss for *_, loss in points]
    y = fitted(losses, bottom, top)
    return _chart(
        f"Loss of {len(points)} evaluations in order, lowest {figures.plain(min(losses))}",
        (right + 16, bottom + 52),
        [
            _grid(x, y, "evaluation", "loss on the search split"),
            _level(facts.unpruned, x, y),
            _steps(facts.best, x, y),
            tag("g", (_point(facts, e, x(i), y(loss)) for i, e, loss in points)),
            tag("g", (_failure(e, x(i), bottom) for i, e in enumerate(facts.search) if not e.ok)),
        ],
        wide=True,
    )


def legend(evaluations: Iterable[Evaluation], extra: Sequence[Markup] = ()) -> Markup:
    """The marks of the origins that occur."""
    found = {e.origin: mark(e.origin) for e in evaluations}
    names = [*(o for o in ORIGINS if o in found), *sorted(o for o in found if o not in ORIGINS)]
    return tag(
        "ul",
        (tag("li", _symbol(found[name]), name or "other") for name in names),
        extra,
        class_="legend",
    )


def line_key(class_: str, text: str) -> Markup:
    """A legend's entry for a line."""
    stroke = tag("path", d="M0 7H24", class_=class_)
    svg = tag("svg", stroke, width=24, height=14, viewBox="0 0 24 14", aria_hidden="true")
    return tag("li", svg, text)


def mark(origin: str) -> str:
    """The form that stands for an origin."""
    return ORIGINS.get(origin, "dot")


def _symbol(form: str) -> Markup:
    path = tag("path", d=MARKS[form], class_=f"mark {form}", transform="translate(7 7)")
    return tag("svg", path, width=14, height=14, viewBox="0 0 14 14", aria_hidden="true")


def _chart(
    label: str, size: tuple[float, float], children: Sequence[Markup | None], wide: bool = False
) -> Markup:
    width, height = size
    svg = tag(
        "svg",
        children,
        class_="chart wide" if wide else "chart",
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
        tabindex=0,
        data_walk=True,
    )
    return tag("div", svg, class_="figure scroll")


def _grid(x: Scale, y: Scale, below: str, beside: str) -> Markup:
    xs = [tick for tick in x.ticks if x.log or tick == int(tick) or x.high - x.low < 8]
    middle = (y.begin + y.end) / 2
    return tag(
        "g",
        (tag("line", x1=x.begin, x2=x.end, y1=y(t), y2=y(t)) for t in y.ticks),
        (tag("line", x1=x(t), x2=x(t), y1=y.begin, y2=y.begin + 4) for t in xs),
        (tag("text", _tick(t), x=x.begin - 8, y=y(t) + 4, class_="end") for t in y.ticks),
        (tag("text", _tick(t), x=x(t), y=y.begin + 18) for t in xs),
        tag("line", x1=x.begin, x2=x.end, y1=y.begin, y2=y.begin, class_="base"),
        tag("text", below, x=(x.begin + x.end) / 2, y=y.begin + 40, class_="name"),
        tag("text", beside, transform=f"translate(14 {number(middle)}) rotate(-90)", class_="name"),
        class_="grid",
    )


def _tick(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.6g}"


def _level(loss: float | None, x: Scale, y: Scale) -> Markup | None:
    if loss is None or not y.low <= loss <= y.high:
        return None
    title = tag("title", f"unpruned: {figures.plain(loss)}")
    return tag("line", title, x1=x.begin, x2=x.end, y1=y(loss), y2=y(loss), class_="level")


def _steps(best: Sequence[tuple[int, float]], x: Scale, y: Scale) -> Markup | None:
    if not best:
        return None
    (start, loss), *rest = best
    path = f"M{number(x(start))} {number(y(loss))}"
    path += "".join(f"H{number(x(i))}V{number(y(value))}" for i, value in rest)
    return tag("path", d=f"{path}H{number(x.end)}", class_="best")


def _point(facts: Facts, e: Evaluation, x: float, y: float) -> Markup:
    form = mark(e.origin)
    return tag(
        "path",
        tag("title", describe(facts, e)),
        d=MARKS[form],
        class_=f"mark {form}",
        transform=f"translate({number(x)} {number(y)})",
    )


def _failure(e: Evaluation, x: float, y: float) -> Markup:
    title = tag("title", f"evaluation {e.number}: {e.status}")
    where = f"translate({number(x)} {number(y)})"
    return tag("path", title, d=MARKS["cross"], class_="mark cross", transform=where)


def describe(facts: Facts, e: Evaluation, names: int = 6) -> str:
    """An evaluation as a tooltip."""
    removed = [facts.graph.units[i].name for i, bit in enumerate(e.mask) if bit == "1"]
    lines = [f"evaluation {e.number}, {e.origin or 'other'}", f"loss {figures.plain(e.loss)}"]
    if e.predicted is not None:
        spread = f" ± {figures.plain(e.deviation)}" if e.deviation else ""
        lines.append(f"predicted {figures.plain(e.predicted)}{spread}")
    lines += [f"{name} {figures.metric(name, value)}" for name, value in e.metrics.items()]
    lines.append(f"{len(removed)} removed{':' if removed else ''}")
    lines += removed[:names]
    if len(removed) > names:
        lines.append(f"and {len(removed) - names} more")
    return "\n".join(lines)
