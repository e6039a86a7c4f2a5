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
Logs = dict[tuple[int, str], float]  # by vertex and quantity
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
        for unit, cut, before in _single(graph, sizes):
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


def _single(graph: Graph, sizes: Any) -> Iterator[tuple[int, Logs, Logs]]:
    """Each unit, the logarithms without it and all that must go before it, and without these."""
    alone = [(unit,) for unit in range(len(graph.units)) if unit not in graph.group_of]
    for group in (*alone, *graph.nested):
        mask, before = graph.empty, Logs()
        for unit in group:
            mask = mask.with_removed(unit)
            cut = _logs(graph, mask, sizes)
            yield unit, cut, before
            before = cut


def _logs(graph: Graph, mask: Mask, sizes: Any) -> Logs:
    """The logarithm of what is left of the costs that a mask changes; full ones go to `sizes`."""
    alive = liveness(graph, mask)
    if not alive.connected:
        return {}
    found: Logs = {}
    for index, before, after in count_changes(graph, alive):
        for name in QUANTITIES:
            full, left = getattr(before, name), getattr(after, name)
            if full and left != full:
                sizes[index, name] = full
                found[index, name] = float(np.log(max(left / full, _LEAST)))
    return found
