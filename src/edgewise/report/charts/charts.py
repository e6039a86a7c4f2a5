"""The plots of a study as charts: predictions, progress, the front, interactions, methods."""

import math
from collections.abc import Mapping, Sequence

from ...evaluation.records import Evaluation
from ...search import Point
from ...values.quantities import limit_text
from .. import numbers
from ..facts import Facts
from .chart import Axis, Chart, Form, Role, Series, spans_decades

# origin → (mark, colour); both tell them apart
ORIGINS: Mapping[str, tuple[Form, Role]] = {
    "unpruned": ("diamond", "ink"),
    "leave-one-out": ("ring", "grey"),
    "sampled": ("dot", "blue"),
    "ranking": ("dot", "teal"),
    "proposed": ("triangle", "orange"),
    "single pick": ("square", "green"),
    "greedy": ("square", "teal"),
    "finalist": ("star", "plum"),
}
ROLES: Sequence[Role] = ("orange", "blue", "green", "plum", "teal", "red", "grey", "ink")
SHOWN = 6  # units that a mask names
QUANTITIES = {
    "units": "units left",
    "params": "parameters left",
    "macs": "MACs left, for one example",
    "activation_bytes": "bytes of activations left, for one example",
    "weight_bytes": "bytes of weights left",
    "latency": "predicted seconds for one batch",
}


def predicted(facts: Facts) -> Chart:
    """Predicted against measured loss of every mask that was predicted before it was measured."""
    points = facts.foreseen
    values = [value for _, *pair in points for value in pair]
    log = spans_decades(values)
    ends = (min(values, default=0.0), max(values, default=1.0))
    diagonal = Series("right", ends, ends, "grey", stroke="dashed", listed=False)
    return Chart(
        "predicted",
        precision(points),
        Axis("predicted loss", log),
        Axis("measured loss", log),
        (diagonal, *_by_origin(facts, points, spread=True)) if points else (),
        square=True,
    )


def precision(points: Sequence[tuple[Evaluation, float, float]]) -> str:
    """How far off predictions were, in words."""
    if not points:
        return "Nothing was predicted before it was measured."
    errors = sorted(abs(guess - loss) / abs(loss) for _, guess, loss in points if loss)
    middle = numbers.share(errors[len(errors) // 2]) if errors else numbers.DASH
    text = (
        f"{numbers.counted(len(points), 'prediction')}; the median error is {middle} of the "
        "measured loss."
    )
    within = [abs(guess - loss) <= e.deviation for e, guess, loss in points if e.deviation]
    if not within:
        return text
    return (
        f"{text} In {numbers.share(sum(within) / len(within))} of the cases the measured loss lay "
        f"within one standard deviation (68{numbers.THIN}% would be well calibrated)."
    )


def progress(facts: Facts) -> Chart:
    """Every evaluation's loss in order, failures, and the best within the budget so far."""
    losses = [loss for *_, loss in facts.drawn]
    within = f"within {facts.budget}" if facts.budget else "with something removed"
    series = _by_origin(facts, [(e, float(i), loss) for i, e, loss in facts.drawn])
    lines = [_level(facts), _best(facts, within), _failed(facts, losses)]
    return Chart(
        "progress",
        _course(facts, losses, within),
        Axis("evaluation", ticks="whole"),
        Axis("loss on the search split", spans_decades(losses)),
        (*filter(None, lines), *series),
    )  # fmt: skip


def _course(facts: Facts, losses: Sequence[float], within: str) -> str:
    if not losses:
        return "Nothing has been measured yet."
    parts = [f"Losses of {len(losses)} evaluations in order, lowest {numbers.plain(min(losses))}"]
    if facts.unpruned is not None:
        parts.append(f"unpruned {numbers.plain(facts.unpruned)}")
    if facts.best:
        parts.append(f"best {within} {numbers.plain(facts.best[-1][1])}")
    return f"{', '.join(parts)}."


def _level(facts: Facts) -> Series | None:
    if facts.unpruned is None or not facts.drawn or not math.isfinite(facts.unpruned):
        return None
    ends, level = (0.0, float(len(facts.search) - 1)), (facts.unpruned, facts.unpruned)
    return Series("unpruned loss", ends, level, "grey", stroke="dotted")


def _best(facts: Facts, within: str) -> Series | None:
    if not facts.best:
        return None
    places, losses = zip(*facts.best, strict=True)
    end = float(len(facts.search) - 1)
    xs, ys = (*map(float, places), end), (*losses, losses[-1])
    return Series(f"best so far {within}", xs, ys, "ink", stroke="steps")


def _failed(facts: Facts, losses: Sequence[float]) -> Series | None:
    """Failures have no loss; they are marked at the lowest one."""
    failures = [(i, e) for i, e in enumerate(facts.search) if not e.ok]
    if not failures or not losses:
        return None
    xs = tuple(float(i) for i, _ in failures)
    texts = tuple(f"evaluation {e.number}: {e.status}" for _, e in failures)
    return Series("failed", xs, (min(losses),) * len(xs), "red", "cross", texts=texts)


def pareto(facts: Facts, points: Sequence[Point]) -> Chart:
    """The least loss that a surrogate thinks reachable at each cost, and what was measured."""
    name = next(iter(points[0].budget.limits), "macs") if points else "macs"
    costs = tuple(float(getattr(point.cost, name)) for point in points)
    losses = tuple(point.predicted for point in points)
    seen = [(i, point) for i, point in enumerate(points) if point.measured is not None]
    foreseen = Series(
        "predicted", costs, losses, "blue", "dot", "solid",
        tuple(point_text(facts, point) for point in points),
    )  # fmt: skip
    known = Series(
        "measured on the search split",
        tuple(costs[i] for i, _ in seen),
        tuple(point.measured or 0.0 for _, point in seen),
        "plum",
        "star",
        texts=tuple(point_text(facts, point) for _, point in seen),
    )
    bounds = [
        Series("one standard deviation", costs, edge, "grey", stroke="dotted", listed=sign > 0)
        for sign in (1, -1)
        if (edge := tuple(p.predicted + sign * p.deviation for p in points)) and min(edge) > 0
    ]
    return Chart(
        "pareto",
        f"{numbers.counted(len(points), 'point')}, of which none is both dearer and predicted to "
        "be worse than another.",
        Axis(QUANTITIES[name], ticks="whole" if name == "units" else "prefixed"),
        Axis("loss on the search split", spans_decades(losses)),
        (*bounds, foreseen, *((known,) if seen else ())),
    )  # fmt: skip


def point_text(facts: Facts, point: Point) -> str:
    """A point of the front in words, a line each."""
    limits = ", ".join(f"{k} = {limit_text(v)}" for k, v in point.budget.limits.items())
    name = next(iter(point.budget.limits))
    lines = [f"asked for {limits}", numbers.quantity(name, getattr(point.cost, name))]
    lines.append(
        f"predicted loss {numbers.plain(point.predicted)} ± {numbers.plain(point.deviation)}"
    )
    if point.measured is not None:
        lines.append(f"measured {numbers.plain(point.measured)}")
    return "\n".join([*lines, *_removed(facts, str(point.mask))])


def methods(histories: Mapping[str, Sequence[Sequence[float | None]]]) -> Chart:
    """Lowest search loss within the budget against evaluations, a line a method and seed.

    Methods that measure a single mask within the budget are points.

    Args:
        histories: method → for each seed the lowest loss after each evaluation, None before the
            first mask within the budget.
    """
    series: list[Series] = []
    for place, (name, runs) in enumerate(histories.items()):
        for number, run in enumerate(runs):
            known = [(float(n), value) for n, value in enumerate(run, 1) if value is not None]
            if known:
                series.append(_history(name, known, ROLES[place % len(ROLES)], number == 0))
    ends = [run[-1] for runs in histories.values() for run in runs if run]
    lowest = min((end for end in ends if end is not None), default=None)
    return Chart(
        "methods",
        f"{numbers.counted(len(histories), 'method')}, equal numbers of evaluations; the lowest "
        f"search loss is {numbers.plain(lowest)}.",
        Axis("evaluations", ticks="whole"),
        Axis("lowest search loss within the budget"),
        tuple(series),
    )


def _history(name: str, known: Sequence[tuple[float, float]], role: Role, first: bool) -> Series:
    xs, ys = zip(*known, strict=True)
    texts = tuple(f"{name}\n{numbers.plain(y)} after {x:.0f} evaluations" for x, y in known)
    if len(set(ys)) == 1:
        return Series(name, xs[:1], ys[:1], role, "dot", texts=texts[:1], listed=first)
    return Series(name, xs, ys, role, stroke="steps", texts=texts, listed=first)


def _by_origin(
    facts: Facts, points: Sequence[tuple[Evaluation, float, float]], spread: bool = False
) -> list[Series]:
    """Evaluations at their coordinates, a series for each origin, known ones first."""
    groups: dict[str, list[tuple[Evaluation, float, float]]] = {}
    for point in points:
        groups.setdefault(point[0].origin, []).append(point)
    series = []
    for name in [*(o for o in ORIGINS if o in groups), *sorted(groups.keys() - ORIGINS.keys())]:
        form, role = ORIGINS.get(name, ("dot", "blue"))
        found, xs, ys = zip(*groups[name], strict=True)
        texts = tuple(describe(facts, e) for e in found)
        bars = tuple(_finite(e.deviation) for e in found) if spread else ()
        series.append(Series(name or "other", xs, ys, role, form, texts=texts, spread=bars))
    return series


def describe(facts: Facts, e: Evaluation) -> str:
    """An evaluation in words, a line each."""
    lines = [f"evaluation {e.number}, {e.origin or 'other'}", f"loss {numbers.plain(e.loss)}"]
    if e.predicted is not None:
        spread = f" ± {numbers.plain(e.deviation)}" if e.deviation else ""
        lines.append(f"predicted {numbers.plain(e.predicted)}{spread}")
    lines += [f"{name} {numbers.metric(name, value)}" for name, value in e.metrics.items()]
    return "\n".join([*lines, *_removed(facts, e.mask)])


def _removed(facts: Facts, bits: str) -> list[str]:
    """How many units a mask removes, and the first of them."""
    removed = [facts.graph.units[i].label for i, bit in enumerate(bits) if bit == "1"]
    more = [f"and {len(removed) - SHOWN} more"] if len(removed) > SHOWN else []
    return [f"{len(removed)} removed{':' if removed else ''}", *removed[:SHOWN], *more]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
