"""What a mask looks like to a kernel: nested widths are one ordinal number, not many bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..graph.graph import Graph, Unit
from .validation import Array


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of masks, as weights of the units.

    A unit that is not a width is a coordinate by itself, of weight 1. The widths of one group are
    one coordinate: the importance that is gone, in units of what the training masks remove of a
    group on average, so that equal numbers mean equal expected harm in any group.

    Args:
        weights: [n_units, n_coordinates].
        widths: [n_coordinates] whether it is a group of widths.
        places: [n_coordinates] where along the graph, counted in different places: 0, 1, …
        typical: [n_coordinates] how much each is expected to matter, or 1.0.
        spread: of the logarithm of how much it does matter, around that; 0 where that is not
            fitted, None for a prior that suits their number.
    """

    weights: Array
    widths: np.ndarray[tuple[int], np.dtype[np.bool_]]
    places: Array
    typical: Array | float = 1.0
    spread: float | None = None

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """[n_coordinates] the number of each one's place."""
        return self.places.astype(np.int64)

    @cached_property
    def gaps(self) -> NDArray[np.int64]:
        """[n_places, n_places] how far places are apart."""
        numbers = np.arange(self.place.max(initial=-1) + 1)
        return np.asarray(np.abs(numbers[:, None] - numbers))

    def by_place(self, values: Array) -> Array:
        """[n, n_places] of values [n, n_coordinates] the sums of each place."""
        return np.asarray(values @ self._placed)

    @cached_property
    def _placed(self) -> csr_matrix:
        count = len(self.place)
        return csr_matrix((np.ones(count), (range(count), self.place)), (count, len(self.gaps)))

    @staticmethod
    def of(graph: Graph, masks: Array) -> Coordinates:
        """The coordinates of a graph's masks, scaled by training masks [n, n_units]."""
        group_of = graph.group_of
        single = [u for u in range(len(graph.units)) if u not in group_of]
        weights = np.zeros((len(graph.units), len(single) + len(graph.nested)))
        weights[single, range(len(single))] = 1.0
        for column, group in enumerate(graph.nested, len(single)):
            scores = np.array([graph.units[u].importance for u in group])
            # without scores: as if harm grew with the square of what is cut
            weights[group, column] = scores if (scores > 0).all() else 2 * np.arange(len(group)) + 1
        widths = np.arange(weights.shape[1]) >= len(single)
        gone = masks @ weights[:, widths]
        typical = gone[gone > 0]
        weights[:, widths] /= typical.mean() if len(typical) else 1.0
        depth = _depths(graph)
        places = [depth[u] for u in single] + [np.mean(depth[list(g)]) for g in graph.nested]
        # places in order, not depths: a deep branch is no farther from the next than a shallow one
        order = np.unique(np.round(places, 6), return_inverse=True)[1]
        return Coordinates(weights, widths, order.ravel().astype(np.float64))

    @cached_property
    def _plain(self) -> bool:
        """Whether the coordinates are the units."""
        return np.array_equal(self.weights, np.eye(len(self.weights)))

    def values(self, masks: Array) -> tuple[Array, Array]:
        """(coordinates [n, n_coordinates], their sum over groups of widths [n]) of masks."""
        single = masks if self._plain else masks @ self.weights
        return single, single[:, self.widths].sum(axis=1)


def _depths(graph: Graph) -> Array:
    """[n_units] mean depth of the vertices at each unit: longest paths from an input."""
    vertex = np.zeros(len(graph.vertices))
    for index, into in enumerate(graph.inputs):
        vertex[index] = max((vertex[graph.edges[e].source] + 1.0 for e in into), default=0.0)

    def depth(unit: Unit) -> float:
        edges = [graph.edges[e] for e in unit.removal.edges]
        ends = [end for edge in edges for end in (edge.source, edge.target)]
        return float(np.mean(vertex[[*ends, *unit.removal.vertices]]))

    return np.array([depth(unit) for unit in graph.units], dtype=np.float64)
