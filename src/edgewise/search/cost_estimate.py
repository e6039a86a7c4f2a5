"""What many masks cost, nearly and at once, so that few need an exact count."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..graph.cost import cost, count_changes
from ..graph.graph import Cost, Graph, Mask
from ..graph.liveness import Liveness, liveness
from ..graph.times import OperatorTimes

Array = NDArray[np.float64]
Logs = dict[tuple[int, str], float]  # by vertex and quantity
QUANTITIES = ("params", "macs", "activation_bytes", "weight_bytes")
DENSE = 1 << 14  # logarithms, above which it is faster to pass over those that are 0
_LEAST = 1e-9  # of an operator remains where nothing does, so that there is a logarithm


class CostEstimate:
    """Costs as if every unit multiplied what each operator costs by a factor of its own.

    That is exact for products of live widths inside branches that are there or not. It errs where
    pieces are concatenated, since these add up, and where only several removals together leave
    something without a reader.

    Args:
        graph: the traced graph; one liveness is computed for each of its units.
        times: of its operators, if latency is to be estimated too.
    """

    def __init__(self, graph: Graph, times: OperatorTimes | None = None) -> None:
        self.graph, self.times = graph, times
        self.quantities = QUANTITIES if times is None else (*QUANTITIES, "latency")
        factors: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)  # logarithms
        sizes: dict[tuple[int, str], float] = {}
        for unit, cut, before in self._single(sizes):
            for key in cut.keys() | before.keys():
                factors[key][unit] = cut.get(key, 0.0) - before.get(key, 0.0)
        # what all units multiply by the same factors is one part
        parts: dict[tuple[tuple[int, float], ...], Array] = {}
        for key, by_unit in factors.items():
            same = parts.setdefault(tuple(by_unit.items()), np.zeros(len(self.quantities)))
            same[self.quantities.index(key[1])] += sizes[key]
        entries = [(log, unit, n) for n, part in enumerate(parts) for unit, log in part]
        logs, units, places = zip(*entries, strict=True) if entries else ((), (), ())
        made = csr_matrix((logs, (units, places)), (len(graph.units), len(parts)))
        self.logs = made.toarray() if made.shape[0] * made.shape[1] <= DENSE else made
        self.parts = np.array([*parts.values()]).reshape(len(parts), len(self.quantities))
        whole = cost(graph)
        if times is not None:
            whole = replace(whole, seconds=times.seconds(liveness(graph, graph.empty)))
        self.whole = self.amounts(whole)

    def __call__(
        self, masks: Sequence[Mask], near: Mask | None = None, known: Cost | None = None
    ) -> Array:
        """[n, quantities]: parameters, MACs, activation and weight bytes, and seconds.

        Args:
            masks: what is estimated.
            near: a mask that these are a few moves from.
            known: its cost, by which estimates are corrected.
        """
        bits = self.graph.matrix(masks)
        start = self.graph.matrix([near or self.graph.empty])[0]
        # what the start leaves of each part, and what the others change of that
        logs, changes = start @ self.logs, bits - start
        left, some = np.exp(logs), np.flatnonzero(changes.any(axis=0))
        if isinstance(self.logs, np.ndarray):
            touched = np.exp(logs + changes[:, some] @ self.logs[some]) - left
        else:
            touched = csr_matrix(changes[:, some]) @ self.logs[some]
            touched.data = np.exp(logs[touched.indices] + touched.data) - left[touched.indices]
        base = self.whole + (left - 1.0) @ self.parts
        found = base + touched @ self.parts
        if known is not None:
            least = [_LEAST if name == "latency" else 1.0 for name in self.quantities]
            found *= self.amounts(known) / np.maximum(base, least)
        return np.asarray(found)

    def amounts(self, known: Cost) -> Array:
        """[quantities] of a known cost."""
        return np.array([getattr(known, name) for name in self.quantities], float)

    def _single(self, sizes: Any) -> Iterator[tuple[int, Logs, Logs]]:
        """Each unit, the logarithms without it and what must go before it, and without these."""
        graph = self.graph
        alone = [(unit,) for unit in range(len(graph.units)) if unit not in graph.group_of]
        for group in (*alone, *graph.nested):
            mask, before = graph.empty, Logs()
            for unit in group:
                mask = mask.with_removed(unit)
                cut = self._logs(mask, sizes)
                yield unit, cut, before
                before = cut

    def _logs(self, mask: Mask, sizes: Any) -> Logs:
        """The logarithm of what is left of each cost that a mask changes; full ones to `sizes`."""
        alive = liveness(self.graph, mask)
        if not alive.connected:
            return {}
        found: Logs = {}
        for index, name, full, left in self._changes(alive):
            if full and left != full:
                sizes[index, name] = full
                found[index, name] = float(np.log(max(left / full, _LEAST)))
        return found

    def _changes(self, alive: Liveness) -> Iterator[tuple[int, str, float, float]]:
        for index, before, after in count_changes(self.graph, alive):
            for name in QUANTITIES:
                yield index, name, getattr(before, name), getattr(after, name)
        for index, full, left in self.times.changes(alive) if self.times else ():
            yield index, "latency", full, left
