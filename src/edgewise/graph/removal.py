"""What is taken from a network: by one unit, or by all the units of a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Removal:
    """Edges, layers and channels that go; units and masks differ in nothing else to a network.

    Args:
        edges: indices of edges that carry nothing.
        layers: indices of vertices that pass their input on unchanged.
        channels: for a vertex and an axis of its output, the channels that it loses.

    Examples:
        >>> removal = graph.units[0].removal
        >>> sorted(removal.edges), removal.vertices
        ([3, 4, 5, 6, 7, 9], ())
    """

    edges: frozenset[int] = frozenset()
    layers: frozenset[int] = frozenset()
    channels: Mapping[tuple[int, int], frozenset[int]] = field(default_factory=dict)

    @staticmethod
    def union(removals: Iterable[Removal]) -> Removal:
        """What goes when all of these go."""
        edges: set[int] = set()
        layers: set[int] = set()
        cuts: dict[tuple[int, int], list[frozenset[int]]] = {}
        for removal in removals:
            edges |= removal.edges
            layers |= removal.layers
            for place, cut in removal.channels.items():
                cuts.setdefault(place, []).append(cut)
        channels = {place: first.union(*others) for place, (first, *others) in cuts.items()}
        return Removal(frozenset(edges), frozenset(layers), channels)

    @property
    def vertices(self) -> tuple[int, ...]:
        """The vertices that are bypassed, and those that lose channels, once an axis."""
        return (*sorted(self.layers), *(vertex for vertex, _ in self.channels))

    @property
    def cuts(self) -> list[list[int]]:
        """The axis and the channels of each cut, in the order of its vertices."""
        return [[axis, *sorted(cut)] for (_, axis), cut in self.channels.items()]
