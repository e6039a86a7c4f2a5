"""Which units a graph offers: series-contracted edges, bypassed layers, or every raw edge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import EdgewiseError
from .cost import cost_of, full_macs
from .graph import Cost, Graph, Unit
from .importance import Importance, l2
from .liveness import Liveness, alive
from .removal import Removal
from .widths import WIDTHS, width_units

KINDS = ("edge", "layer", *WIDTHS, "raw")
SLICES = 8


def with_units(
    graph: Graph,
    granularity: Sequence[str],
    *,
    slices: int = SLICES,
    round_to: int = 1,
    importance: Importance = l2,
) -> Graph:
    """The graph with the units that a granularity names.

    Args:
        graph: vertices and edges.
        granularity: "edge" (series-contracted edges), "layer" (vertices that take MACs and keep
            their input's shape, bypassed by identity), "channels", "hidden" and "heads" (widths),
            or "raw" alone (every edge by itself, also those that disconnect the output).
        slices, round_to, importance: of widths; see `width_units`.

    Raises:
        EdgewiseError: an unknown granularity; see also `width_units`.
    """
    unknown = [kind for kind in granularity if kind not in KINDS]
    if unknown or not granularity:
        raise EdgewiseError(
            f"granularity must name some of {', '.join(KINDS)}; got {list(granularity)}."
        )
    if "raw" in granularity and len(granularity) > 1:
        raise EdgewiseError('granularity "raw" cannot be mixed with others: it is every edge.')
    units: list[Unit] = []
    if "raw" in granularity:
        units += _raw_units(graph)
    if "edge" in granularity:
        units += _edge_units(graph)
    if "layer" in granularity:
        units += _layer_units(graph)
    refused: dict[str, str] = {}
    if any(kind in WIDTHS for kind in granularity):
        widths, refused = width_units(graph, granularity, slices, round_to, importance)
        units += widths
    # the sort is stable: widths of one group stay in the order of their removal
    units.sort(key=lambda unit: (min(graph.starts(unit.removal)), unit.kind, unit.members))
    return replace(graph, units=_distinct(units), granularity=tuple(granularity), refused=refused)


def recorded_units(
    graph: Graph, granularity: Sequence[str], names: Sequence[str], widths: Sequence[Any]
) -> Graph:
    """The graph with the units that a plan recorded: their names, and the widths as plain data.

    The channels of a width are those of the record, whatever weights the graph has.
    """
    plain = [kind for kind in granularity if kind not in WIDTHS]
    units = with_units(graph, plain).units if plain else ()
    known = {unit.name: unit for unit in units}
    for name, kind, group, slices in widths:
        cuts = {(int(vertex), int(axis)): frozenset(cut) for vertex, axis, cut in slices}
        known[name] = Unit(name, kind, Removal(channels=cuts), Cost(0, 0, 0, 0), group)
    found = tuple(known[name] for name in names if name in known)
    return replace(graph, units=found, granularity=tuple(granularity))


def _distinct(units: list[Unit]) -> tuple[Unit, ...]:
    """The units with unique names."""
    count = Counter(unit.name for unit in units)
    seen: Counter[str] = Counter()
    named = []
    for unit in units:
        seen[unit.name] += 1
        again = f"#{seen[unit.name]}" if count[unit.name] > 1 else ""
        named.append(replace(unit, name=unit.name + again))
    return tuple(named)


def _raw_units(graph: Graph) -> list[Unit]:
    saved = Cost(0, 0, 0, 0)  # a single edge may disconnect the output: it has no cost of its own
    edges = range(len(graph.edges))
    return [Unit(_edge_name(graph, e), "edge", Removal(frozenset((e,))), saved) for e in edges]


def _edge_name(graph: Graph, edge: int) -> str:
    source, target = graph.edges[edge].source, graph.edges[edge].target
    return f"{graph.vertices[source].name}->{graph.vertices[target].name}"


def _edge_units(graph: Graph) -> list[Unit]:
    """Classes of edges whose removal leaves the same live graph; bridges are left out."""
    whole = alive(graph)
    base = cost_of(graph, whole)
    classes: dict[object, tuple[str, Cost, list[int]]] = {}  # no liveness, which is long
    for series in _series(graph):
        if whole.wants[series[0]] is None:
            continue
        rest = alive(graph, Removal(frozenset(series[:1])))
        if rest.connected and rest.signature in classes:
            classes[rest.signature][2].extend(series)
        elif rest.connected:
            cost = base - cost_of(graph, rest)
            classes[rest.signature] = _vanished(graph, whole, rest), cost, list(series)
    return [
        Unit(name or _edge_name(graph, min(edges)), "edge", Removal(frozenset(edges)), saved)
        for name, saved, edges in classes.values()
    ]


def _series(graph: Graph) -> list[list[int]]:
    """Edges grouped where a vertex has one output edge and cannot do without its input."""
    group = list(range(len(graph.edges)))

    def root(edge: int) -> int:
        while group[edge] != edge:
            group[edge] = group[group[edge]]  # halves the way for the next search
            edge = group[edge]
        return edge

    for index in range(len(graph.vertices)):
        if len(graph.inputs[index]) == 1 and len(graph.consumers[index]) == 1:
            group[root(graph.inputs[index][0])] = root(graph.consumers[index][0])
    found: dict[int, list[int]] = defaultdict(list)
    for edge in range(len(graph.edges)):
        found[root(edge)].append(edge)
    return list(found.values())


def _vanished(graph: Graph, whole: Liveness, rest: Liveness) -> str:
    """What disappears: "first..last" of the dead vertices; nothing where only edges do."""
    dead = [
        index
        for index, flow in rest.changed.items()
        if flow.out is None and whole.states[index] is not None
    ]
    if not dead:
        return ""
    first, last = graph.vertices[min(dead)].name, graph.vertices[max(dead)].name
    return first if len(dead) == 1 else f"{first}..{last}"


def _layer_units(graph: Graph) -> list[Unit]:
    """Layers that take MACs, whose input and output shapes agree."""
    whole = alive(graph)
    base = cost_of(graph, whole)
    units = []
    for index, vertex in enumerate(graph.vertices):
        if vertex.shape is None or graph.input_shapes[index] != (vertex.shape,):
            continue
        if whole.states[index] is not None and vertex.params and full_macs(graph, index):
            removal = Removal(layers=frozenset((index,)))
            saved = base - cost_of(graph, alive(graph, removal))
            units.append(Unit(f"bypass:{vertex.name}", "layer", removal, saved))
    return units
