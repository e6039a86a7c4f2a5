"""What vertices give and take under a removal: forward what is absent, backward what is unread."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from .graph import Graph, once
from .operators.absence import FULL, Flow, Live, State, intersection, live
from .operators.table import TABLE
from .removal import Removal

FEW = 4  # inputs of a vertex whose flows are remembered
Flows = dict[int, Flow]  # of vertices that lack some of their input or output, or are bypassed
Cuts = Mapping[int, Sequence[tuple[int, Removal]]]


def cuts_of(graph: Graph, removals: Iterable[Removal]) -> Cuts:
    """For each vertex, what removals, by number, take there: edges into it, itself, or channels."""
    found = defaultdict[int, list[tuple[int, Removal]]](list)
    for number, removal in enumerate(removals):
        edges, channels = defaultdict[int, set[int]](set), defaultdict[int, dict[Any, Any]](dict)
        for edge in removal.edges:
            edges[graph.edges[edge].target].add(edge)
        for place, cut in removal.channels.items():
            channels[place[0]][place] = cut
        for index in {*edges, *removal.layers, *channels}:
            layers = removal.layers & {index}
            here = Removal(frozenset(edges.get(index, ())), layers, channels.get(index, {}))
            found[index].append((number, here))
    return found


def forward(
    graph: Graph, here: Callable[[int], Removal], starts: Iterable[int], given: Flows,
    layers: set[int],
) -> list[int]:  # fmt: skip
    """Bring up to date what vertices give and take of what reaches them.

    Only the vertices are looked at where something starts, or an input is not what it was. So the
    time taken is that of what changes, not of the network.

    Args:
        graph: the traced graph.
        here: what is removed at a vertex; of channels, its own alone.
        starts: the vertices where that is not what it was.
        given: flows before; those after.
        layers: the vertices that were bypassed; those that are.

    Returns:
        The vertices whose flow is another one.
    """
    moved, reached, index = list[int](), _marks(graph, starts), -1
    while (index := reached.find(1, index + 1)) >= 0:
        cut, old, was = here(index), given.get(index), index in layers
        ends = [(e, given.get(graph.edges[e].source)) for e in graph.inputs[index]]
        ins = [None if e in cut.edges else FULL if f is None else f.out for e, f in ends]
        bypassed = index in cut.layers
        flow = _new(graph, index, ins, cut, bypassed)
        if flow == old and bypassed == was:
            continue
        moved.append(index)
        _put(given, index, flow)
        (layers.add if bypassed else layers.discard)(index)
        if (FULL if flow is None else flow.out) != (FULL if old is None else old.out):
            for edge in graph.consumers[index]:
                reached[graph.edges[edge].target] = 1
    return moved


def _new(
    graph: Graph, index: int, ins: Sequence[State], cut: Removal, bypassed: bool
) -> Flow | None:
    """The flow of a vertex, None if it has all its inputs in full, and so gives all."""
    if not bypassed and not cut.channels and all([s is FULL for s in ins]):  # noqa: C419 - faster
        return None
    flow = flow_of(graph, index, ins, bypassed)
    if cut.channels and flow.out is not None:
        return _cut(flow, _narrowed(graph, index, cut), bypassed)
    return flow


def _put(flows: Flows, index: int, flow: Flow | None) -> None:
    if flow is None:
        flows.pop(index, None)
    else:
        flows[index] = flow


def flow_of(graph: Graph, index: int, ins: Sequence[State], bypassed: bool = False) -> Flow:
    """What a vertex gives and takes; remembered where inputs are there or not, none in part."""
    if bypassed:
        return Flow(ins[0], tuple(ins))
    key, plain = None, _plain(graph)
    if len(ins) <= FEW and all([s is None or s is FULL for s in ins]):  # noqa: C419 - it is faster
        key = (index, *[state is None for state in ins])
        if key in plain:
            return plain[key]
    vertex = graph.vertices[index]
    flow = TABLE.rules[vertex.op].passage.flow(vertex, graph.input_shapes[index], ins)
    if key is not None:
        plain[key] = flow
    return flow


@once
def _plain(_: Graph) -> dict[Any, Flow]:
    """The flows of vertices by which of their inputs are absent, the others being in full."""
    return {}


def _cut(flow: Flow, narrow: Live, bypassed: bool) -> Flow:
    """The flow of a vertex that gives only some of its channels, be it computed or bypassed."""
    assert flow.out is not None
    out = live(narrow.keeps) if flow.out is FULL else intersection([flow.out, narrow])
    if out is None:
        return Flow(None, (None,) * len(flow.wants))
    return Flow(out, (out,) if bypassed else flow.wants, flow.fill, flow.forward)


def backward(
    graph: Graph, given: Flows, starts: Iterable[int], flows: Flows
) -> dict[int, Flow | None]:
    """Bring up to date the flows of what outputs need; what none needs gives and takes nothing.

    Args:
        graph: the traced graph.
        given: see `forward`.
        starts: the vertices whose flow there is another one.
        flows: those before; those after.

    Returns:
        What they were where they are others now; None = full.
    """
    before, reached = dict[int, Flow | None](), _marks(graph, starts)
    index = len(graph.vertices)
    while (index := reached.rfind(1, 0, index)) >= 0:
        edges, flow, old = graph.inputs[index], given.get(index), flows.get(index)
        if (flow and flow.out is None) or not _needed(graph, index, flows):
            flow = _dead(len(edges))
        if flow is old:
            continue
        before[index] = old
        _put(flows, index, flow)
        wants = [(f or _full(len(edges))).wants for f in (old, flow)]
        for edge, was, want in zip(edges, *wants, strict=True):
            if (was is None) != (want is None):
                reached[graph.edges[edge].source] = 1
    return before


def _needed(graph: Graph, index: int, flows: Flows) -> bool:
    """Whether a vertex is an output or something that lives reads it."""
    for target, slot in _readers(graph)[index]:  # a loop, which takes a third of the time of any()
        flow = flows.get(target)
        if flow is None or flow.wants[slot] is not None:
            return True
    return graph.vertices[index].op == "output"


@once
def _readers(graph: Graph) -> list[list[tuple[int, int]]]:
    """For each vertex, those that read it, and as which of their inputs."""
    ends = {e: (v, slot) for v, edges in enumerate(graph.inputs) for slot, e in enumerate(edges)}
    return [[ends[edge] for edge in edges] for edges in graph.consumers]


@cache
def _full(inputs: int) -> Flow:
    return Flow(FULL, (FULL,) * inputs)


@cache
def _dead(inputs: int) -> Flow:
    return Flow(None, (None,) * inputs)


def _marks(graph: Graph, vertices: Iterable[int]) -> bytearray:
    """A byte for each vertex, 1 for these: `find` leads to the next one faster than any loop."""
    marks = bytearray(len(graph.vertices))
    for index in vertices:
        marks[index] = 1
    return marks


def _narrowed(graph: Graph, index: int, cut: Removal) -> Live:
    """What is left of a vertex's output that loses channels, were it there in full."""
    lines = list[tuple[int, tuple[bool, ...]]]()
    for (_, axis), channels in sorted(cut.channels.items()):
        keep = [True] * graph.vertices[index].channels(axis)
        for channel in channels:
            keep[channel] = False
        lines.append((axis, tuple(keep)))
    return Live(tuple(lines))
