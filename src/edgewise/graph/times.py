"""How long each operator takes as a function of its live widths, and what that makes in all."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .graph import Graph, Mask
from .liveness import Liveness, liveness
from .operators.absence import FULL, Flow
from .operators.table import TABLE

Array = NDArray[np.float64]
_DOUBT = 0.1  # weight of "no width, no time", which decides where nothing was measured
_FLATTEST, _STEEPEST = 0.05, 1.5  # slopes, relative to times that add up exactly


@dataclass(frozen=True, eq=False)
class OperatorTimes:
    """Predicts the latency of what is alive of a graph; removing more never raises it.

    An operator takes `parts[0]`, and the others in proportion to the MACs, the input elements and
    the output elements that are left of it. Where it does not run it takes nothing. The sum over
    all operators is corrected by a straight line through the unpruned network.

    Args:
        graph: the traced graph.
        parts: [vertices, 4] seconds, none negative.
        unpruned: seconds of the whole unpruned network.
        slope: seconds saved for each second that the operators save.
    """

    graph: Graph
    parts: Array
    unpruned: float
    slope: float

    def seconds(self, alive: Liveness) -> float:
        """The predicted time of one batch."""
        return max(self.unpruned - self.slope * self.saved(alive), 0.0)

    def saved(self, alive: Liveness) -> float:
        """Seconds that operators take less than in the unpruned network."""
        return sum(full - left for _, full, left in self._changes(alive))

    def changes(self, alive: Liveness) -> Iterator[tuple[int, float, float]]:
        """Each operator that a mask changes, its seconds in the unpruned network, and then."""
        for index, full, left in self._changes(alive):
            yield index, self.slope * full, self.slope * left

    def _changes(self, alive: Liveness) -> Iterator[tuple[int, float, float]]:
        for index, flow in alive.changed.items():
            full = sum(self._parts[index])
            yield index, full, self._left(index, flow) if alive.runs(index) else 0.0

    def _left(self, index: int, flow: Flow) -> float:
        base, *rest = self._parts[index]
        ratios = _ratios(loads(self.graph, index, flow), self.full[index])
        return base + sum(part * ratio for part, ratio in zip(rest, ratios, strict=True))

    @cached_property
    def full(self) -> tuple[tuple[int, int, int], ...]:
        """What each operator of the unpruned network computes, reads and gives; see `loads`."""
        return tuple(loads(self.graph, i, _whole(self.graph, i)) for i in range(len(self.parts)))

    @cached_property
    def _parts(self) -> list[list[float]]:
        parts: list[list[float]] = self.parts.tolist()
        return parts


def loads(graph: Graph, index: int, flow: Flow) -> tuple[int, int, int]:
    """MACs of a vertex that runs, and the elements it reads and gives, for one example."""
    vertex, out = graph.vertices[index], flow.out
    assert out is not None
    shapes = graph.input_shapes[index]
    read = sum(
        math.prod(want.shape(shape))
        for want, shape in zip(flow.wants, shapes, strict=True)
        if want is not None and shape is not None
    )
    given = 0 if vertex.shape is None else math.prod(out.shape(vertex.shape))
    macs = TABLE.rules[vertex.op].macs(vertex, flow.wants, out, shapes)
    return macs, read, given


def _whole(graph: Graph, index: int) -> Flow:
    return Flow(FULL, (FULL,) * len(graph.inputs[index]))


def _ratios(left: Sequence[int], full: Sequence[int]) -> list[float]:
    return [a / b if b else 1.0 for a, b in zip(left, full, strict=True)]


def fit_parts(graph: Graph, samples: Iterable[tuple[Liveness, Mapping[int, float]]]) -> Array:
    """The parts of each operator's time by least squares, none negative.

    Args:
        graph: the traced graph.
        samples: what was alive, and the seconds that each vertex took then.

    Returns:
        [vertices, 4] seconds; zeros for vertices that took no time.
    """
    from scipy.optimize import nnls

    rows: dict[int, list[tuple[list[float], float]]] = {}
    for alive, times in samples:
        for index, seconds in times.items():
            full = _whole(graph, index)
            flow = alive.changed.get(index, full)
            left = _ratios(loads(graph, index, flow), loads(graph, index, full))
            rows.setdefault(index, []).append(([1.0, *left], seconds))
    parts = np.zeros((len(graph.vertices), 4))
    for index, pairs in rows.items():
        X, y = np.array([x for x, _ in pairs]), np.array([seconds for _, seconds in pairs])
        doubt = _DOUBT * math.sqrt(len(y)) * np.eye(4)[:1]
        parts[index], _ = nnls(np.vstack([X, doubt]), np.append(y, 0.0))
    return parts


def corrected(
    graph: Graph, parts: Array, unpruned: float, measured: Iterable[tuple[Mask, float, float]]
) -> OperatorTimes:
    """Operator times whose sum is corrected by whole networks that were measured.

    The line through the unpruned network that fits them best, by weighted least squares.

    Args:
        graph: the traced graph.
        parts: of `fit_parts`.
        unpruned: seconds of the unpruned network.
        measured: masks, their seconds relative to the unpruned network's, and their weights.
    """
    plain = OperatorTimes(graph, parts, unpruned, 1.0)
    over = under = 0.0
    for mask, ratio, weight in measured:
        saved = plain.saved(liveness(graph, mask))
        over += weight * saved * (1 - ratio) * unpruned
        under += weight * saved * saved
    share = unpruned / max(float(parts.sum()), 1e-12)
    slope = over / under if under > 0 else share
    return OperatorTimes(
        graph, parts, unpruned, float(np.clip(slope, share * _FLATTEST, share * _STEEPEST))
    )
