"""The first screen, for whoever decides: before and after, what went, files, what to do next."""

from collections.abc import Iterator

from ..evaluation.records import Progress
from ..pruning.plan import Measured, Plan
from ..values.markup import Child, Markup, tag
from . import numbers
from .facts import Facts
from .terms import command, definitions, term

SPLITS = {
    "report": "untouched data",
    "verify": "the data that decided among the finalists",
    "search": "the data that guided the search",
}
SHOWN = 8  # names in a row
WENT = {
    "edge": "Branches, connections",
    "layer": "Layers, passed by",
    "hidden": "Inner channels left",
    "channels": "Channels left",
    "heads": "Heads left",
}


def first(facts: Facts, title: str, now: Progress | None = None) -> Markup:
    """All that a decision needs."""
    return tag(
        "header",
        tag("p", "Pruning report", class_="kicker"),
        tag("h1", title),
        tag("p", sentence(facts), class_="sentence"),
        _running(now) if now and now.done < now.total else None,
        tag("dl", (_tile(*tile) for tile in _tiles(facts)), class_="tiles"),
        _cards(facts, facts.plan) if facts.plan else None,
    )


def sentence(facts: Facts) -> str:
    """What was gained and what it cost, in plain words."""
    plan, total = facts.plan, len(facts.graph.units)
    if plan is None:
        done = len(facts.evaluations)
        seen = f"{numbers.counted(done, 'evaluation')} so far" if done else "nothing measured yet"
        return f"No plan yet: {total} units can be removed, {seen}."
    fewer = (
        f"{numbers.share(1 - after / before if before else 0)} fewer {noun}"
        for before, after, noun in (
            (plan.before.macs, plan.after.macs, "MACs"),
            (plan.before.params, plan.after.params, "parameters"),
        )
    )
    parts, split = ", ".join(fewer), _split(plan)
    if split is None:
        return f"{parts}. The result is not measured yet."
    name, value, unpruned = _quality(plan.measured[split])
    healed = facts.outcome.healed
    after = f", {_quality(healed)[1]} after healing" if healed else ""
    return f"{parts}; {name} {value} (unpruned {unpruned}) on {SPLITS[split]}{after}."


def _split(plan: Plan) -> str | None:
    return next((split for split in SPLITS if split in plan.measured), None)


def _quality(measured: Measured) -> tuple[str, str, str]:
    """The first metric, or the loss where there is none: name, value, unpruned value."""
    for name, value in measured.metrics.items():
        before = measured.unpruned_metrics.get(name)
        return name, numbers.metric(name, value), numbers.metric(name, before)
    return "loss", numbers.plain(measured.loss), numbers.plain(measured.unpruned_loss)


def _running(now: Progress) -> Markup:
    bar = tag("progress", value=now.done, max=max(now.total, 1), aria_label="Evaluations")
    return tag("p", bar, tag("span", str(now)), class_="running")


def _tile(name: Child, value: str, note: str) -> Markup:
    return tag(
        "div", tag("dt", name), tag("dd", value), tag("dd", note, class_="note"), class_="tile"
    )


def _tiles(facts: Facts) -> Iterator[tuple[Child, str, str]]:
    plan = facts.plan
    after = plan.after if plan else facts.before
    split = _split(plan) if plan else None
    if plan and split:
        healed, pruned = facts.outcome.healed, plan.measured[split]
        name, value, before = _quality(healed or pruned)
        note = f"unpruned {before}"
        yield (
            f"{name.capitalize()} after healing" if healed else name.capitalize(),
            value,
            f"{note}, before healing {_quality(pruned)[1]}" if healed else note,
        )
    for name, key, show in (
        ("MACs", "macs", numbers.count),
        ("Parameters", "params", numbers.count),
        ("Size of weights", "weight_bytes", numbers.size),
    ):
        yield term(name), *_change(getattr(facts.before, key), getattr(after, key), show)
    if facts.latency_ms:
        yield term("Latency"), *_change(*facts.latency_ms, lambda ms: f"{ms:.3g} ms")


def _change(before: float, after: float, show: numbers.Show) -> tuple[str, str]:
    if before == after:
        return show(before), "unpruned"
    return numbers.change(before, after), f"{show(before)} → {show(after)}"


def _cards(facts: Facts, plan: Plan) -> Markup:
    """What went, how it is loaded, from which files, and what can be done next."""
    files, steps = facts.outcome.files, facts.outcome.next
    commands = {what: command(text) for what, text in steps.items()}
    given = [
        _card(title, definitions(rows))
        for title, rows in (("Files", files), ("What next", commands))
        if rows
    ]
    return tag(
        "div",
        tag("div", _went(facts), _load(facts, plan)),
        tag("div", given) if given else None,
        class_="cards",
    )


def _went(facts: Facts) -> Markup:
    """What is no longer there, by name."""
    found: dict[str, dict[str, str]] = {}
    for index in facts.mask.removed:  # of a width, the last slice says what is left
        unit = facts.graph.units[index]
        name = unit.label.replace(f" {unit.kind} ", " ").removesuffix(" bypass")
        found.setdefault(WENT[unit.kind], {})[unit.group or unit.name] = name
    rows = {kind: _listed([*names.values()]) for kind, names in found.items()}
    rows = rows or {"Removed": "nothing"}
    return _card("What went", definitions(rows), tag("p", balance(facts), class_="note"))


def balance(facts: Facts) -> str:
    """How many units are gone, and why these are more than the plan names."""
    assert facts.plan is not None
    chosen, left = len(facts.plan.removed), facts.plan.after.units
    more = facts.plan.before.units - left - chosen
    also = f", {more} more gone with them" if more > 0 else ""
    return f"{chosen} of {len(facts.graph.units)} units removed{also}: {left} left."


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _load(facts: Facts, plan: Plan) -> Markup:
    load, note = "small = ew.prune(graph, plan)", None
    if "modules" in plan.edits:
        load, note = f'{load[:-1]}, form="module")', "In the model's own class."
    elif "reason" in plan.edits:
        note = f"Not in the model's own class: {plan.edits['reason']}"
    code = tag("pre", facts.outcome.load or load, tabindex=0)
    return _card("How to load it", code, tag("p", note, class_="note") if note else None)


def _card(title: str, *children: Child) -> Markup:
    return tag("section", tag("h2", title), *children, class_="card")
