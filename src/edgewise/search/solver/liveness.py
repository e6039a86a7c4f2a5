"""Liveness for all masks at once: what is alive, as literals over the units that are kept.

The counterpart of `graph/liveness.py`: it asks operators for their bounds instead of their flows.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from ...graph.graph import Graph
from ...graph.operators.remains import TRUE, WHOLE, Line, Literal, Passed, Remains, several
from ...graph.operators.states import FULL, Flow
from ...graph.operators.table import TABLE
from .rows import Circuit


@dataclass(frozen=True)
class Removals:
    """Which units remove what: literals of those that are kept.

    Args:
        edges: for an edge, that it is not removed.
        layers: for a vertex, that it is not bypassed.
        channels: for a vertex and an axis, that each channel is not cut.
    """

    edges: Mapping[int, Literal]
    layers: Mapping[int, Literal]
    channels: Mapping[int, Mapping[int, Line]]


def essential(graph: Graph) -> tuple[frozenset[int], frozenset[int]]:
    """Units that every valid mask keeps, and vertices that are alive under every valid mask.

    Without any one of these an output is absent: they are what each input of a sum has in common,
    and what any input of another operator has, from the model's inputs to its outputs. Sets are
    the bits of whole numbers: first units, then vertices.
    """
    units = len(graph.units)
    cuts: dict[int, int] = defaultdict(int)
    for index, unit in enumerate(graph.units):
        for edge in unit.removal.edges:
            cuts[edge] |= 1 << index
    common: list[int] = []
    outputs = 0
    for index, edges in enumerate(graph.inputs):
        ins = [common[graph.edges[e].source] | cuts[e] for e in edges]
        either, which = _gives(graph, index)
        needs = [ins[i] for i in which]
        found = reduce(and_ if either else or_, needs) if needs else 0
        common.append(found | 1 << units + index)
        outputs |= common[-1] if graph.vertices[index].op == "output" else 0
    return (
        frozenset(u for u in range(units) if outputs >> u & 1),
        frozenset(v for v in range(len(common)) if outputs >> units + v & 1),
    )


def _flow(graph: Graph, index: int, there: Collection[int]) -> Flow:
    """What an operator gives of which only some inputs are there, in full."""
    vertex, shapes = graph.vertices[index], graph.input_shapes[index]
    ins = [FULL if slot in there else None for slot in range(len(shapes))]
    return TABLE.rules[vertex.op].passage.flow(vertex, shapes, ins)


def _alone(graph: Graph, index: int) -> list[int]:
    """Inputs each of which suffices for an operator to give something."""
    slots = range(len(graph.inputs[index]))
    return [slot for slot in slots if _flow(graph, index, [slot]).out is not None]


def _gives(graph: Graph, index: int) -> tuple[bool, Sequence[int]]:
    """Inputs without which an operator gives nothing: without all (True) or any (False) of them."""
    slots = range(len(graph.inputs[index]))
    rest = [[other for other in slots if other != slot] for slot in slots]
    needed = [slot for slot in slots if _flow(graph, index, rest[slot]).out is None]
    if needed:
        return False, needed
    alone = _alone(graph, index)
    others = [slot for slot in slots if slot not in alone]
    return (True, alone) if _flow(graph, index, others).out is None else (False, ())


def removals(
    graph: Graph, keeps: Sequence[int], circuit: Circuit, needed: frozenset[int]
) -> Removals:
    """The literals of a graph's units, whose variables are `keeps`; `needed` ones always stay."""
    edges: dict[int, Literal] = defaultdict(lambda: TRUE)
    layers: dict[int, Literal] = defaultdict(lambda: TRUE)
    channels: dict[int, dict[int, list[Literal]]] = defaultdict(dict)
    for index, unit in enumerate(graph.units):
        kept: Literal = TRUE if index in needed else frozenset((keeps[index],))
        for found, members in (edges, unit.removal.edges), (layers, unit.removal.layers):
            for member in sorted(members):
                found[member] = circuit.all(found[member], kept)
        for (vertex, axis), cut in unit.removal.channels.items():
            wide = graph.vertices[vertex].channels(axis)
            line = channels[vertex].setdefault(axis, [TRUE] * wide)
            for channel in sorted(cut):
                line[channel] = circuit.all(line[channel], kept)
    lines = {v: {a: tuple(k) for a, k in axes.items()} for v, axes in channels.items()}
    return Removals(dict(edges), dict(layers), lines)


@dataclass(frozen=True)
class Remaining:
    """What is alive, never overstated.

    Args:
        outs: for each vertex, what remains of its output, needed or not.
        wants: for each vertex, what it reads of its inputs if it lives.
        live: for each vertex, that it is there and an output needs it.
        runs: likewise, and that its operator is more than the identity.
        wanted: for each edge, that it carries something to a vertex that lives.
        by_paths: whether all that lies on a path from an input to an output, none of whose edges
            is removed, is alive.
    """

    outs: tuple[Remains, ...]
    wants: tuple[Sequence[Remains], ...]
    live: tuple[Literal, ...]
    runs: tuple[Literal, ...]
    wanted: tuple[Literal, ...]
    by_paths: bool


def remaining(
    graph: Graph, removed: Removals, circuit: Circuit, needed: frozenset[int]
) -> Remaining:
    """What is alive in a network whose outputs are all there, and so are the `needed` vertices."""
    outs: list[Remains] = []
    ins: list[list[Remains]] = []
    wants: list[Sequence[Remains]] = []
    for index, edges in enumerate(graph.inputs):
        taken = []
        for e in edges:
            state = outs[graph.edges[e].source]
            carried = circuit.all(state.here, removed.edges.get(e, TRUE))
            taken.append(state.restricted(circuit, carried))
        out, want = _through_vertex(graph, index, taken, removed, circuit)
        if index in needed:
            out = Remains(TRUE, out.axes)
        outs.append(out)
        ins.append(taken)
        wants.append(want)
    live, wanted = _backward(graph, outs, ins, wants, circuit, needed)
    runs = tuple(
        circuit.all(live[v], removed.layers.get(v, TRUE), _more_than_one(graph, v, ins[v], circuit))
        for v in range(len(outs))
    )
    paths = _by_paths(graph, removed)
    return Remaining(tuple(outs), tuple(wants), live, runs, wanted, paths)


def _by_paths(graph: Graph, removed: Removals) -> bool:
    """Whether every operator gives something whenever one of its inputs is there."""
    for index, vertex in enumerate(graph.vertices):
        passage = TABLE.rules[vertex.op].passage
        if removed.channels and passage.parts:
            return False
        either = len(_alone(graph, index)) == len(graph.inputs[index]) and not passage.thins
        if vertex.op != "output" and graph.inputs[index] and not either:
            return False
    return True


def _through_vertex(
    graph: Graph, index: int, ins: Sequence[Remains], removed: Removals, circuit: Circuit
) -> Passed:
    vertex = graph.vertices[index]
    if index not in removed.channels and all(state == WHOLE for state in ins):
        return WHOLE, (WHOLE,) * len(ins)
    bound, shapes = TABLE.rules[vertex.op].passage.bound, graph.input_shapes[index]
    out, wants = bound(circuit, vertex, shapes, ins) if ins else (WHOLE, ())
    if index in removed.layers:
        out = _or_bypassed(circuit, out, ins[0], removed.layers[index])
    for axis, line in removed.channels.get(index, {}).items():
        before = out.line(axis, len(line))
        cut = tuple(circuit.all(a, b) for a, b in zip(before, line, strict=True))
        out = out.narrowed(circuit, axis, cut)
    return out, wants


def _or_bypassed(circuit: Circuit, out: Remains, passing: Remains, kept: Literal) -> Remains:
    """What a vertex gives that may pass its input on: what it would give both ways, or its own."""

    def either(computed: Literal, passed_on: Literal) -> Literal:
        if computed == passed_on:
            return computed
        return circuit.any([circuit.all(computed, passed_on), circuit.all(computed, kept)])

    axes: dict[int, Line] = {}
    for axis in sorted({*out.axes, *passing.axes}):
        size = len(out.axes.get(axis) or passing.axes[axis])
        pairs = zip(out.line(axis, size), passing.line(axis, size), strict=True)
        axes[axis] = tuple(either(a, b) for a, b in pairs)
    return Remains(either(out.here, passing.here), axes)


def _backward(
    graph: Graph, outs: Sequence[Remains], ins: Sequence[Sequence[Remains]],
    wants: Sequence[Sequence[Remains]], circuit: Circuit, needed: frozenset[int],
) -> tuple[tuple[Literal, ...], tuple[Literal, ...]]:  # fmt: skip
    """For each vertex whether it lives, for each edge whether something that lives reads it."""
    live: list[Literal] = [None] * len(outs)
    wanted: list[Literal] = [None] * len(graph.edges)
    for index in reversed(range(len(outs))):
        vertex = graph.vertices[index]
        if vertex.op == "output" or index in needed:
            live[index] = TRUE
        else:
            needed_by = circuit.any(wanted[e] for e in graph.consumers[index])
            live[index] = circuit.all(outs[index].here, needed_by)
        read = ins[index] if TABLE.rules[vertex.op].passage.reads_all else wants[index]
        for edge, state in zip(graph.inputs[index], read, strict=True):
            wanted[edge] = circuit.all(live[index], state.here)
    return tuple(live), tuple(wanted)


def _more_than_one(graph: Graph, index: int, ins: Sequence[Remains], circuit: Circuit) -> Literal:
    """That an operator is not left with one input, which it would pass on."""
    slots = range(len(ins)) if len(ins) > 1 else ()
    alone = [_flow(graph, index, [slot]) for slot in slots]
    if not any(flow.forward for flow in alone):
        return TRUE
    here = [state.here for state in ins]
    computed = [here[i] for i, flow in enumerate(alone) if flow.out and not flow.forward]
    return circuit.any([several(circuit, here), *computed])


def require_outputs(graph: Graph, removed: Removals, circuit: Circuit) -> None:
    """Rows without which an output would certainly be absent; `circuit` is one of upper bounds."""
    there: list[Literal] = []
    for index, edges in enumerate(graph.inputs):
        ins = [circuit.all(there[graph.edges[e].source], removed.edges.get(e, TRUE)) for e in edges]
        there.append(_possible(graph, index, ins, circuit))
        if graph.vertices[index].op == "output" and ins:
            for variable in circuit.all(*ins) or ():
                circuit.rows.at_least({variable: 1.0}, 1.0)


def _possible(graph: Graph, index: int, ins: Sequence[Literal], circuit: Circuit) -> Literal:
    """That the output of a vertex may be there."""
    either, which = _gives(graph, index)
    needs = [ins[i] for i in which]
    return circuit.any(needs) if either and needs else circuit.all(*needs)
