"""From a Graph to the few ways that masks can tell apart.

A way is kept when none of the units that cut it is removed. Where a layer can be bypassed or
loses channels, its vertex is parallel ways: one that each of these units cuts, and one that is
always there. Nodes fed by one way only are contracted, ways between the same nodes that the
same units cut are merged, and what lies on no path from an input to an output is dropped: the
path sum stays the same function of the mask, with fewer terms.
"""

from collections import defaultdict

import numpy as np

from ..graph.graph import Graph
from .path_graph import SOURCE, Flow, Indices, Way
from .validation import Array


def reduce_graph(graph: Graph) -> Flow:
    """The Flow of a graph's units (see the module docstring)."""
    count, ways = _expand(graph)
    ways = _on_a_path(count, ways)
    return _contract(count, ways, len(graph.units))


def _expand(graph: Graph) -> tuple[int, list[Way]]:
    """Nodes in topological order: the source, each vertex (a layer unit's is two), the sink."""
    cut_edge: dict[int, set[int]] = defaultdict(set)
    cut_layer: dict[int, set[int]] = defaultdict(set)
    cut_width: dict[int, set[int]] = defaultdict(set)
    for index, unit in enumerate(graph.units):
        gone = unit.removal
        narrow = (vertex for vertex, _ in gone.channels)
        for cut, where in (cut_edge, gone.edges), (cut_layer, gone.layers), (cut_width, narrow):
            for place in where:
                cut[place].add(index)
    entry, leave, count = [0] * len(graph.vertices), [0] * len(graph.vertices), 1
    ways: list[Way] = []
    for index, vertex in enumerate(graph.vertices):
        if vertex.op == "input" or not graph.inputs[index]:
            continue  # stays at the source, where z = 1
        entry[index] = leave[index] = count
        count += 1
        for e in graph.inputs[index]:
            tail = leave[graph.edges[e].source]
            ways.append(Way(tail, entry[index], frozenset(cut_edge[e]), e))
        inside: list[frozenset[int]] = [frozenset((u,)) for u in sorted(cut_width[index])]
        if index in cut_layer:
            inside.append(frozenset(cut_layer[index]))
        if inside:
            leave[index] = count
            count += 1
            inside.append(frozenset())
            ways += [Way(entry[index], leave[index], side, -1) for side in inside]
    sink = count
    ways += [
        Way(leave[i], sink, frozenset(), -1)
        for i, vertex in enumerate(graph.vertices)
        if vertex.op == "output"
    ]
    return sink + 1, ways


def _on_a_path(count: int, ways: list[Way]) -> list[Way]:
    """The ways that lie on a path from the source to the sink."""
    reached, needed = {SOURCE}, {count - 1}
    for way in sorted(ways, key=lambda way: way.head):
        if way.tail in reached:
            reached.add(way.head)
    for way in sorted(ways, key=lambda way: -way.tail):
        if way.head in needed:
            needed.add(way.tail)
    return [way for way in ways if way.tail in reached and way.head in needed]


def _contract(count: int, ways: list[Way], units: int) -> Flow:
    """Merge parallel ways and contract nodes with one way in, in one topological pass.

    A node's incoming ways are final once all its predecessors are done, so each node is looked at
    once: ways are re-rooted at what their tail contracted to, with the units passed on the way.
    """
    rooted: dict[int, tuple[int, frozenset[int]]] = {SOURCE: (SOURCE, frozenset())}
    incoming: dict[int, list[int]] = defaultdict(list)
    for index, way in enumerate(ways):
        incoming[way.head].append(index)
    origin = np.full(len(ways), -1, dtype=np.intp)
    share = np.ones(len(ways))
    reduced: list[tuple[int, int, frozenset[int]]] = []
    for node in sorted(incoming):
        merged: dict[tuple[int, frozenset[int]], list[int]] = defaultdict(list)
        for index in incoming[node]:
            root, passed = rooted[ways[index].tail]
            merged[root, passed | ways[index].units].append(index)
        alone = len(merged) == 1
        for (root, cut), members in merged.items():
            share[members] = 1.0 / len(members)
            if alone and (node != count - 1 or not cut):
                rooted[node] = (root, cut)
            else:
                origin[members] = len(reduced)
                reduced.append((root, node, cut))
                rooted[node] = (node, frozenset())
    return _arrays(reduced, units, origin, share, ways)


def _arrays(
    reduced: list[tuple[int, int, frozenset[int]]],
    units: int,
    origin: Indices,
    share: Array,
    ways: list[Way],
) -> Flow:
    """Number the nodes that are left and write the ways as arrays."""
    nodes = sorted({SOURCE} | {head for _, head, _ in reduced})
    number = {node: i for i, node in enumerate(nodes)}
    cuts = np.zeros((len(reduced), units))
    for row, (_, _, cut) in enumerate(reduced):
        cuts[row, sorted(cut)] = 1.0
    return Flow(
        nodes=len(nodes),
        tails=np.array([number[tail] for tail, _, _ in reduced], dtype=np.intp),
        heads=np.array([number[head] for _, head, _ in reduced], dtype=np.intp),
        cuts=cuts,
        origin=origin,
        share=share,
        ways=tuple(ways),
    )
