"""What a network costs under a mask, counted on exactly what the rewrite would emit."""

from __future__ import annotations

import math

from .absence import FULL, Live, State, elements
from .graph import Cost, Follow, Graph, Mask, Parameter, Vertex
from .liveness import Liveness, input_shapes, liveness
from .ops import TABLE


def cost(graph: Graph, mask: Mask | None = None) -> Cost:
    """The cost of what remains of the graph under a mask, for one example.

    Args:
        graph: the traced graph.
        mask: what is removed; None = nothing.

    Returns:
        Live units, parameters, MACs and activation bytes of the pruned network, exactly.

    Raises:
        MaskError: the mask belongs to another graph.
        DisconnectedError: the mask cuts off a model output.

    Example:
        >>> ew.cost(graph, graph.empty).params  # doctest: +SKIP
        272474
    """
    alive = liveness(graph, graph.empty if mask is None else mask)
    return cost_of(graph, alive.require_connected())


def cost_of(graph: Graph, alive: Liveness) -> Cost:
    """As `cost`, for a liveness that is known already."""
    params: dict[str, int] = {}
    macs = activations = 0
    for index, vertex in enumerate(graph.vertices):
        state = alive.states[index]
        if state is None or index in alive.bypassed or index in alive.forwarded:
            continue
        ins = [alive.wants[e] for e in graph.inputs[index]]
        rule = TABLE.rules[vertex.op]
        shapes = input_shapes(graph, index)
        macs += rule.macs(vertex, ins, state, shapes)
        if not rule.view and vertex.op not in ("input", "output") and vertex.shape is not None:
            activations += math.prod(state.shape(vertex.shape)) * vertex.itemsize
        for parameter in vertex.params:
            if not parameter.buffer:
                sizes = live_shape(parameter, ins[0] if ins else None, state)
                params[parameter.name] = math.prod(sizes)
    return Cost(_live_units(graph, alive), sum(params.values()), macs, activations)


def live_shape(parameter: Parameter, inner: State, outer: Live) -> tuple[int, ...]:
    """The shape of what remains of a parameter."""
    return tuple(
        size if keep is None else sum(keep)
        for size, keep in zip(parameter.shape, live_slices(parameter, inner, outer), strict=True)
    )


def live_slices(
    parameter: Parameter, inner: State, outer: Live
) -> tuple[tuple[bool, ...] | None, ...]:
    """For each dimension of a parameter, which entries remain (None = all)."""
    return tuple(_kept(follow, inner, outer) for follow in parameter.follows)


def _kept(follow: Follow, inner: State, outer: Live) -> tuple[bool, ...] | None:
    if follow is None:
        return None
    state = inner if follow[0] == "in" else outer
    return None if state is None else state.keep(follow[1])


def _live_units(graph: Graph, alive: Liveness) -> int:
    def lives(kind: str, member: int) -> bool:
        if kind == "edge":
            return alive.wants[member] is not None
        return alive.states[member] is not None and member not in alive.bypassed

    return sum(any(lives(unit.kind, m) for m in unit.members) for unit in graph.units)


def weight(vertex: Vertex) -> int:
    """Parameters that a vertex reads, in full."""
    return sum(elements(p.shape) for p in vertex.params if not p.buffer)


def full_macs(graph: Graph, index: int) -> int:
    """Multiply-accumulates of one vertex in the unpruned network."""
    vertex = graph.vertices[index]
    ins = [FULL for _ in graph.inputs[index]]
    return TABLE.rules[vertex.op].macs(vertex, ins, FULL, input_shapes(graph, index))
