"""What a mask looks like to a kernel: nested widths are one ordinal number, not many bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph import Graph
from .observations import Array


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of masks, as weights of the units.

    A unit that is not a width is a coordinate by itself, of weight 1. The widths of one group are
    one coordinate: the importance that is gone, in units of what the training masks remove of a
    group on average, so that equal numbers mean equal expected harm in any group.

    Args:
        weights: [n_units, n_coordinates].
        widths: [n_coordinates] whether it is a group of widths.
    """

    weights: Array
    widths: np.ndarray[tuple[int], np.dtype[np.bool_]]

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
        return Coordinates(weights, widths)

    def values(self, masks: Array) -> tuple[Array, Array]:
        """(coordinates [n, n_coordinates], their sum over groups of widths [n]) of masks."""
        single = masks @ self.weights
        return single, single[:, self.widths].sum(axis=1)
