"""Which pairs of units hurt or help each other beyond the sum of their single effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from .validation import Array, Link

DRAWS = 400  # of the posterior; a standard deviation from them is 3.5 % off
MOST = 40  # units of one map


@dataclass(frozen=True, slots=True)
class Pair:
    """Two units and how far removing both is from the sum of removing each.

    Args:
        first, second: indices of units.
        effect: f(both) - f(first) - f(second) + f(neither) on the link scale; above 0 the loss with
            both removed is higher than the single effects say.
        deviation: of that number, by the surrogate's posterior.
    """

    first: int
    second: int
    effect: float
    deviation: float

    @property
    def known(self) -> bool:
        """Whether the effect stands out of its uncertainty."""
        return abs(self.effect) > self.deviation


@dataclass(frozen=True, slots=True)
class Interactions:
    """Second differences of a surrogate's prediction around one mask.

    Args:
        units: indices of the units in any of the pairs, in the graph's order.
        pairs: those that can be removed together and of which neither takes the other with it.
        base: the mask around which the units are removed and put back, as text.
        link: the scale of the effects.
    """

    units: tuple[int, ...]
    pairs: tuple[Pair, ...]
    base: str
    link: Link


def interactions(
    model: Any, graph: Graph, base: Mask, *, units: Sequence[int] | None = None
) -> Interactions:
    """The interactions that a fitted `GraphGP` sees between units around a mask.

    Deviations come from joint draws of the posterior: the four predictions of one difference are
    far from independent. Widths are no units of the map, since their slices go in one order.

    Args:
        model: a fitted surrogate with `predict_link` and `sample`.
        graph: of the masks.
        base: everything else stays as it is here.
        units: to look at, by default all; of more than 40 those whose removal the fit saw most.

    Examples:
        >>> model = ew.surrogates.GraphGP(graph).fit(X, losses)
        >>> found = interactions(model, graph, graph.empty, units=[0, 1, 2])
        >>> len(found.pairs) <= 3
        True
    """
    wanted = range(len(graph.units)) if units is None else units
    able = [unit for unit in wanted if _removable(graph, base, unit)]
    chosen = sorted(_often_removed(model, able)[:MOST])
    by_first: dict[int, list[int]] = {unit: [] for unit in chosen}
    for first, second in combinations(chosen, 2):
        if _apart(graph, base, first, second):
            by_first[first].append(second)
    pairs = [
        pair for first, others in by_first.items() if others
        for pair in _row(model, graph, base, first, others)
    ]  # fmt: skip
    met = {unit for pair in pairs for unit in (pair.first, pair.second)}
    shown = tuple(unit for unit in chosen if unit in met)
    return Interactions(shown, tuple(pairs), str(base), model.link)


def _removable(graph: Graph, base: Mask, unit: int) -> bool:
    return unit not in graph.group_of and liveness(graph, base.with_removed(unit)).connected


def _often_removed(model: Any, units: Sequence[int]) -> list[int]:
    """Units, the most often removed of the training masks first."""
    if model.posterior_ is None:
        return list(units)
    counts = model.posterior_.masks.sum(axis=0)
    return sorted(units, key=lambda unit: (-counts[unit], unit))


def _apart(graph: Graph, base: Mask, first: int, second: int) -> bool:
    """Whether both can be removed, and each still matters where the other is gone."""
    both = liveness(graph, base.with_removed(first, second))
    if not both.connected:
        return False
    bare = base.with_kept(first, second)
    alone = (liveness(graph, bare.with_removed(unit)).signature for unit in (first, second))
    return both.signature not in alone


def _row(model: Any, graph: Graph, base: Mask, first: int, others: Sequence[int]) -> list[Pair]:
    """The differences of one unit with several others."""
    bare = [base.with_kept(first, other) for other in others]
    corners = [
        *(mask.with_removed(first, other) for mask, other in zip(bare, others, strict=True)),
        *(mask.with_removed(first) for mask in bare),
        *(mask.with_removed(other) for mask, other in zip(bare, others, strict=True)),
        *bare,
    ]
    distinct = list(dict.fromkeys(corners))
    place = {mask: index for index, mask in enumerate(distinct)}
    at = np.array([place[mask] for mask in corners]).reshape(4, -1)
    X = graph.matrix(distinct)
    effects = _second(model.predict_link(X)[None], at)[0]
    spread = _second(model.sample(X, DRAWS, random_state=0), at).std(axis=0)
    return [
        Pair(first, other, float(effect), float(deviation))
        for other, effect, deviation in zip(others, effects, spread, strict=True)
    ]


def _second(values: Array, at: Any) -> Array:
    """[n, pairs] both - first - second + neither, of values [n, masks] at places [4, pairs]."""
    both, first, second, neither = (values[:, places] for places in at)
    return np.asarray(both - first - second + neither)
