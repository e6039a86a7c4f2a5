"""What vertices give and take under a removal: forward what is absent, backward what is unread."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from .graph import Graph, once
from .operators.absence import FULL, Flow, Live, State, intersection, live
from .operators.table import TABLE
from .removal import Removal

FEW = 4  # inputs of a vertex whose flows are remembered


def forward(graph: Graph, removal: Removal) -> dict[int, Flow]:
    """The flows of the vertices that are bypassed or cut, or lack some of their input."""
    flows: dict[int, Flow] = {}
    states: list[State] = [FULL] * len(graph.vertices)
    removed, bypassed, narrow = removal.edges, removal.layers, _narrowed(graph, removal)
    reached = _marks(graph, graph.starts(removal))
    index = -1
    while (index := reached.find(1, index + 1)) >= 0:
        ins = [None if e in removed else states[graph.edges[e].source] for e in graph.inputs[index]]
        flow = flow_of(graph, index, ins, index in bypassed)
        if index in narrow and flow.out is not None:
            flow = _cut(flow, narrow[index], index in bypassed)
        flows[index] = flow
        states[index] = flow.out
        if flow.out is not FULL:
            for edge in graph.consumers[index]:
                reached[graph.edges[edge].target] = 1
    return flows


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


def backward(graph: Graph, flows: dict[int, Flow]) -> tuple[dict[int, Flow], dict[int, State]]:
    """The flows with those of dead vertices, which no output needs; what edges carry in part."""
    changed: dict[int, Flow] = {}
    wants: dict[int, State] = {}
    reached = _marks(graph, [*flows, *graph.dead_ends])
    index = len(graph.vertices)
    while (index := reached.rfind(1, 0, index)) >= 0:
        flow = flows.get(index)
        if (flow and flow.out is None) or not _needed(graph, index, wants):
            flow = _dead(len(graph.inputs[index]))
        if flow is None:
            continue  # it has lost a reader, but not the last
        changed[index] = flow
        for edge, want in zip(graph.inputs[index], flow.wants, strict=True):
            if want is not FULL:
                wants[edge] = want
                if want is None:
                    reached[graph.edges[edge].source] = 1
    return changed, wants


def _needed(graph: Graph, index: int, wants: Mapping[int, State]) -> bool:
    """Whether a vertex is an output or something that lives reads it."""
    for edge in graph.consumers[index]:  # a loop, which takes a third of the time of any()
        if wants.get(edge, FULL) is not None:
            return True
    return graph.vertices[index].op == "output"


@cache
def _dead(inputs: int) -> Flow:
    return Flow(None, (None,) * inputs)


def _marks(graph: Graph, vertices: Iterable[int]) -> bytearray:
    """A byte for each vertex, 1 for these: `find` leads to the next one faster than any loop."""
    marks = bytearray(len(graph.vertices))
    for index in vertices:
        marks[index] = 1
    return marks


def _narrowed(graph: Graph, removal: Removal) -> dict[int, Live]:
    """For every vertex whose output loses channels, those that are left."""
    found: dict[int, Live] = {}
    for vertex, axis in sorted(removal.channels):
        keep = [True] * graph.vertices[vertex].channels(axis)
        for channel in removal.channels[vertex, axis]:
            keep[channel] = False
        found[vertex] = Live((*found.get(vertex, FULL).keeps, (axis, tuple(keep))))
    return found
