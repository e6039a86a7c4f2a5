"""What many masks cost, nearly and at once, so that few need an exact count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cost import cost, count_changes
from ..graph import Cost, Graph, Mask
from ..liveness import liveness

Array = NDArray[np.float64]
QUANTITIES = ("params", "macs", "activation_bytes")
_LEAST = 1e-9  # of an operator remains where nothing does, so that there is a logarithm


class CostEstimate:
    """Costs as if every unit multiplied what each operator costs by a factor of its own.

    That is exact for products of live widths inside branches that are there or not. It errs where
    pieces are concatenated, since these add up, and where only several removals together leave
    something without a reader.

    Args:
        graph: the traced graph; one liveness is computed for each of its units.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        rows: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
        sizes: dict[tuple[int, str], int] = {}
        for unit, mask, less in _single(graph):
            cut, before = _logs(graph, mask, sizes), _logs(graph, less, sizes)
            for key in cut.keys() | before.keys():
                rows[key][unit] = cut.get(key, 0.0) - before.get(key, 0.0)
        self.logs = np.zeros((len(rows), len(graph.units)))
        self.parts = np.zeros((len(rows), len(QUANTITIES)))
        for row, (key, factors) in enumerate(rows.items()):
            self.logs[row, list(factors)] = list(factors.values())
            self.parts[row, QUANTITIES.index(key[1])] = sizes[key]
        self.rest = _amounts(cost(graph)) - self.parts.sum(0)

    def __call__(self, masks: Sequence[Mask]) -> Array:
        """[n, 3]: parameters, MACs and activation bytes."""
        factors = np.exp(self.graph.matrix(masks) @ self.logs.T)
        return np.asarray(self.rest + factors @ self.parts)

    def near(self, mask: Mask, known: Cost) -> Array:
        """[3]: factors that make the estimate of a mask its known cost."""
        return np.asarray(_amounts(known) / np.maximum(self([mask])[0], 1.0))


def _amounts(known: Cost) -> Array:
    return np.array([getattr(known, name) for name in QUANTITIES], float)


def _single(graph: Graph) -> Iterator[tuple[int, Mask, Mask]]:
    """Each unit, the mask without it and all that must go before it, and that without these."""
    for unit in range(len(graph.units)):
        group = graph.group_of.get(unit, (unit,))
        before = group[: group.index(unit)]
        yield unit, graph.mask([*before, unit]), graph.mask(before)


def _logs(graph: Graph, mask: Mask, sizes: Any) -> dict[tuple[int, str], float]:
    """The logarithm of what is left of the costs that a mask changes; full ones go to `sizes`."""
    alive = liveness(graph, mask)
    if not alive.connected:
        return {}
    found = {}
    for index, before, after in count_changes(graph, alive):
        for name in QUANTITIES:
            full, left = getattr(before, name), getattr(after, name)
            if full and left != full:
                sizes[index, name] = full
                found[index, name] = float(np.log(max(left / full, _LEAST)))
    return found
