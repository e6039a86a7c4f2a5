"""Which units a graph offers: series-contracted edges, bypassed layers, or every raw edge."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import EdgewiseError
from .blocks import attends, blocks_of
from .cost import cost_of, full_macs
from .graph import Cost, Graph, Unit
from .importance import Importance, l2
from .labels import labelled
from .liveness import alive
from .operators.joining import connected
from .removal import Removal
from .widths import WIDTHS, Multiple, width_units

KINDS = ("branch", "edge", "layer", *WIDTHS, "raw")
SLICES = 8
LEAST = 1e-4  # of the network's parameters or MACs, which a branch saves
MIXES = ("pool", "resample", "fft")  # operators that take time without either


def with_units(
    graph: Graph,
    granularity: Sequence[str],
    *,
    slices: int = SLICES,
    round_to: Multiple = 1,
    importance: Importance = l2,
) -> Graph:
    """The graph with the units that a granularity names.

    Args:
        graph: vertices and edges.
        granularity: "branch" (series-contracted edges that save something, see `_edge_units`),
            "edge" (all of them), "layer" (vertices that take MACs and keep their input's shape,
            bypassed by identity), "channels", "hidden" and "heads" (widths), or "raw" alone (every
            edge by itself, also those that disconnect the output).
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
    found: list[_Found] = []
    if "raw" in granularity:
        found += map(_Found, _raw_units(graph))
    if "branch" in granularity or "edge" in granularity:
        found += _edge_units(graph, slight="edge" in granularity)
    whole = "branch" in granularity and "edge" not in granularity
    if "layer" in granularity:
        within = _projections(graph, found) if whole else frozenset()
        layers = _layer_units(graph)
        found += (_Found(unit, offered=within.isdisjoint(unit.removal.layers)) for unit in layers)
    refused: dict[str, str] = {}
    if any(kind in WIDTHS for kind in granularity):
        widths, refused = width_units(graph, granularity, slices, round_to, importance)
        found += map(_Found, widths)
    # the sort is stable: widths of one group stay in the order of their removal
    found.sort(
        key=lambda one: (min(graph.starts(one.unit.removal)), one.unit.kind, one.unit.members)
    )
    named = labelled(graph, _distinct(one.unit for one in found), [one.dead for one in found])
    offered = [one._replace(unit=u) for u, one in zip(named, found, strict=True) if one.offered]
    if whole:  # branches before their parts
        offered.sort(
            key=lambda one: (min(graph.starts(one.unit.removal) | {*one.dead}), -len(one.dead))
        )
    return replace(
        graph,
        units=tuple(one.unit for one in offered),
        granularity=tuple(granularity),
        refused=refused,
        blocks=blocks_of(graph),
    )


class _Found(NamedTuple):
    """A unit, the vertices that die with it, and whether it is offered."""

    unit: Unit
    dead: Sequence[int] = ()
    offered: bool = True


def recorded_units(
    graph: Graph, granularity: Sequence[str], names: Sequence[str], widths: Sequence[Any]
) -> Graph:
    """The graph with the units that a plan recorded: names, and widths and ties as plain data.

    The channels of a width are those of the record, whatever weights the graph has.
    """
    kinds = ["edge" if kind == "branch" else kind for kind in granularity if kind not in WIDTHS]
    units = with_units(graph, kinds).units if kinds else ()
    known = {unit.name: unit for unit in units}
    for name, kind, group, slices, *whole in widths:
        cuts = {(int(vertex), int(axis)): frozenset(cut) for vertex, axis, cut in slices}
        edges, layers = map(frozenset, whole or ((), ()))
        removal = Removal(edges, layers, cuts)
        known[name] = Unit(name, kind, removal, Cost(0, 0, 0, 0), group, label=name)
    found = tuple(known[name] for name in names if name in known)
    return replace(graph, units=found, granularity=tuple(granularity))


def _distinct(units: Iterable[Unit]) -> list[Unit]:
    """The units with unique names."""
    listed = list(units)
    count, seen = Counter(unit.name for unit in listed), Counter[str]()
    named = []
    for unit in listed:
        seen[unit.name] += 1
        again = f"#{seen[unit.name]}" if count[unit.name] > 1 else ""
        named.append(replace(unit, name=unit.name + again))
    return named


def _raw_units(graph: Graph) -> list[Unit]:
    saved = Cost(0, 0, 0, 0)  # a single edge may disconnect the output: it has no cost of its own
    edges = range(len(graph.edges))
    return [Unit(_edge_name(graph, e), "edge", Removal(frozenset((e,))), saved) for e in edges]


def _edge_name(graph: Graph, edge: int) -> str:
    source, target = graph.edges[edge].source, graph.edges[edge].target
    return f"{graph.vertices[source].name}->{graph.vertices[target].name}"


def _edge_units(graph: Graph, slight: bool) -> list[_Found]:
    """Classes of edges whose removal leaves the same live graph; bridges are left out.

    Those that are `slight` are offered where that is asked: they save no more than `LEAST` of the
    network's parameters and of its MACs, and no operator that mixes places (`MIXES`) goes with
    them. Nor do they save more together: what dies when several go dies with a unit of its own.
    """
    whole = alive(graph)
    base = cost_of(graph, whole)
    classes: dict[object, tuple[list[int], Cost, list[int]]] = {}  # no liveness, which is long
    for series in _series(graph):
        if whole.wants[series[0]] is None:
            continue
        rest = alive(graph, Removal(frozenset(series[:1])))
        if rest.connected and rest.signature in classes:
            classes[rest.signature][2].extend(series)
        elif rest.connected:
            gone = [i for i, f in rest.changed.items() if f.out is None]
            dead = sorted(i for i in gone if whole.states[i] is not None)
            classes[rest.signature] = dead, base - cost_of(graph, rest), list(series)
    found = []
    for dead, saved, edges in classes.values():
        much = slight or _much(graph, base, saved, dead)
        unit = Unit(_class_name(graph, dead, edges), "edge", Removal(frozenset(edges)), saved)
        found.append(_Found(unit, dead, much))
    return found


def _much(graph: Graph, base: Cost, saved: Cost, dead: Iterable[int]) -> bool:
    """Whether a saving is worth a unit."""
    if any(graph.vertices[index].op.startswith(MIXES) for index in dead):
        return True
    names = ("params", "macs") if base.params or base.macs else ("activation_bytes",)
    return any(getattr(saved, name) > LEAST * getattr(base, name) for name in names)


def _series(graph: Graph) -> list[list[int]]:
    """Edges grouped where a vertex has one output edge and cannot do without its input."""
    around = zip(graph.inputs, graph.consumers, strict=True)
    pairs = [(*ins, *outs) for ins, outs in around if len(ins) == len(outs) == 1]
    ends = np.array(pairs, np.intp).reshape(-1, 2).T
    found: dict[int, list[int]] = defaultdict(list)
    for edge, one in enumerate(connected(len(graph.edges), [*ends]).tolist()):
        found[one].append(edge)
    return list(found.values())


def _class_name(graph: Graph, dead: Sequence[int], edges: Iterable[int]) -> str:
    """What disappears: "first..last" of the dead vertices, or "source->target" of the edge."""
    if not dead:
        return _edge_name(graph, min(edges))
    first, last = graph.vertices[min(dead)].name, graph.vertices[max(dead)].name
    return first if len(dead) == 1 else f"{first}..{last}"


def _projections(graph: Graph, found: Iterable[_Found]) -> frozenset[int]:
    """The vertices whose innermost branch is an attention: none of its projections goes alone."""
    innermost: dict[int, Sequence[int]] = {}
    for one in sorted(found, key=lambda one: -len(one.dead)):
        innermost |= dict.fromkeys(one.dead, one.dead)
    return frozenset(index for index, dead in innermost.items() if attends(graph, dead))


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
