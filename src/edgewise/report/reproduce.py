"""What it takes to get the same result again."""

import json
from collections.abc import Iterator, Mapping

from ..values.markup import Markup, tag
from ..values.quantities import limit_text
from ..values.redact import redact
from ..values.version import __version__
from . import numbers
from .facts import Facts
from .terms import definitions, fold


def reproduce(facts: Facts, extra: Mapping[str, str]) -> Markup:
    """The section with fingerprint, provenance and the caller's own texts."""
    return fold(
        "reproduce",
        "How to reproduce",
        "versions, seed, mask and configuration",
        None,
        tag("div", definitions(dict(_entries(facts))), class_="card"),
        ([tag("h3", label), tag("pre", redact(text), tabindex=0)] for label, text in extra.items()),
    )


def _entries(facts: Facts) -> Iterator[tuple[str, str]]:
    graph, plan = facts.graph, facts.plan
    if plan is None or plan.provenance.get("edgewise") != __version__:
        yield "Page by edgewise", __version__
    yield (
        "Graph",
        (
            f"{len(graph.vertices)} operators, {len(graph.edges)} edges, {len(graph.units)} units "
            f"({', '.join(graph.granularity)}), read by {graph.frontend}"
        ),
    )
    yield "Fingerprint", graph.fingerprint
    if plan is None:
        return
    limits = ", ".join(f"{k} = {limit_text(v)}" for k, v in plan.budget.items())
    yield "Budget", limits or numbers.DASH
    yield "Surrogate", plan.surrogate
    yield "Recovery", plan.recovery
    loss, deviation = plan.predicted.get("loss"), plan.predicted.get("deviation")
    if loss is not None:
        spread = f" ± {numbers.plain(deviation)}" if deviation is not None else ""
        yield "Predicted loss", f"{numbers.plain(loss)}{spread}"
    for name, value in plan.provenance.items():
        yield f"{name[:1].upper()}{name[1:]}", _plain(value)
    yield "Mask", plan.bits


def _plain(value: object) -> str:
    """A value of the provenance in words: {"a": 1, "b": 2} → "a 1, b 2"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, default=str)
