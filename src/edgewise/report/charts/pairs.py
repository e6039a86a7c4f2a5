"""The map of interactions: which units hurt or help each other when both go."""

import math

from ...graph.graph import Graph
from ...surrogates.interactions import Interactions, Pair
from .. import numbers
from .chart import Chart, Heat

LETTERS = 28


def heat_map(graph: Graph, found: Interactions) -> Chart:
    """The interactions of every two units, those the data say nothing about left grey."""
    at = {unit: place for place, unit in enumerate(found.units)}
    size = len(found.units)
    values: list[list[float | None]] = [[None] * size for _ in range(size)]
    texts = [["cannot be looked at together"] * size for _ in range(size)]
    for pair in found.pairs:
        for a, b in ((pair.first, pair.second), (pair.second, pair.first)):
            values[at[a]][at[b]] = pair.effect if pair.known else None
            texts[at[a]][at[b]] = _cell(graph, pair)
    largest = max((abs(pair.effect) for pair in found.pairs if pair.known), default=1.0)
    return Chart(
        "interactions",
        summary(found),
        heat=Heat(
            tuple(_short(graph.units[unit].label) for unit in found.units),
            tuple(map(tuple, values)),
            tuple(map(tuple, texts)),
            largest,
            "effect on the log loss" if found.link == "log" else "effect on the loss",
        ),
    )  # fmt: skip


def summary(found: Interactions) -> str:
    """How many pairs there are, and of how many something is known."""
    known = sum(pair.known for pair in found.pairs)
    return (
        f"{numbers.counted(len(found.pairs), 'pair')} of {len(found.units)} units; the effect "
        f"stands out of its uncertainty in {known}."
    )


def strongest(found: Interactions, count: int) -> list[Pair]:
    """The pairs with the surest and largest effects."""
    known = [pair for pair in found.pairs if pair.known]
    return sorted(known, key=lambda p: (p.deviation - abs(p.effect), p.first, p.second))[:count]


def say(graph: Graph, found: Interactions, pair: Pair) -> str:
    """A pair in words."""
    one, other = (graph.units[unit].label for unit in (pair.first, pair.second))
    verb = "hurt more" if pair.effect > 0 else "hurt less"
    return f"{one} and {other} {verb} together than one by one: {_size(found, pair)}."


def _size(found: Interactions, pair: Pair) -> str:
    if found.link != "log":
        return f"loss {numbers.signed(pair.effect)} ± {numbers.plain(pair.deviation)}"
    factor, low, high = (math.exp(pair.effect + sign * pair.deviation) for sign in (0.0, -1.0, 1.0))
    low_, high_ = numbers.plain(low), numbers.plain(high)
    return (
        f"{numbers.plain(factor)} times the loss that the single effects give ({low_} to {high_})"
    )


def _cell(graph: Graph, pair: Pair) -> str:
    names = [graph.units[unit].label for unit in (pair.first, pair.second)]
    known = [] if pair.known else ["not known: less than one standard deviation"]
    effect = f"effect {numbers.signed(pair.effect)} ± {numbers.plain(pair.deviation)}"
    return "\n".join([*names, effect, *known])


def _short(name: str) -> str:
    """The end of a name that is too long for an axis."""
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def around(found: Interactions) -> str:
    """Where the differences were taken, in words."""
    count = found.base.count("1")
    if not count:
        return "with nothing else removed"
    return f"around a mask that removes {numbers.counted(count, 'unit')}"
