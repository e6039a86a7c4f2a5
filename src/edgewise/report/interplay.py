"""Which units hurt or help each other, as a map and in words."""

from ..values.markup import Markup, tag
from .charts import pairs
from .charts.canvas import canvas
from .facts import Facts
from .terms import fold

SHOWN = 8


def interplay(facts: Facts) -> Markup | None:
    """The section with the map of interactions, where there is one."""
    found = facts.insight.interactions
    if found is None or not found.pairs:
        return None
    lines = [pairs.say(facts.graph, found, p) for p in pairs.strongest(found, SHOWN)]
    return fold(
        "interactions",
        "Interactions",
        "which units hurt or help each other",
        _intro(facts),
        canvas(pairs.heat_map(facts.graph, found)),
        tag("h3", "Strongest pairs") if lines else None,
        tag("ul", (tag("li", line) for line in lines), class_="says") if lines else None,
    )


def _intro(facts: Facts) -> str:
    found = facts.insight.interactions
    assert found is not None
    scale = "logarithm of the loss" if found.link == "log" else "loss"
    text = (
        "What removing two units does beyond the sum of removing each, as a Gaussian process on "
        f"the graph predicts it {pairs.around(found)}, on the {scale}: f(both) − f(first) − "
        "f(second) + f(neither). Red pairs hurt each other, blue pairs help each other. Grey: the "
        "effect is less than one standard deviation of its prediction, so that the evaluations "
        "say nothing about it, or one of the two takes the other with it."
    )
    more = " Protected units are left out." if facts.protected else ""
    return f"{text} {pairs.summary(found)}{more}"
