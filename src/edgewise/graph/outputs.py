"""On which inputs the outputs of a network depend, and which units would change that."""

from functools import reduce
from operator import or_

from .cost import full_macs
from .graph import Graph, Mask
from .liveness import Liveness, alive, liveness
from .removal import Removal


def with_outputs_kept(graph: Graph, heads: bool = True) -> Graph:
    """The graph without the units that would make an output of a network a constant of the input.

    With `heads` also without the last layer before an output, where that is the only way to it:
    what a head computes is its weights, whatever comes before.
    """
    last = _heads(graph) if heads else frozenset[int]()
    whole = _dependence(graph, alive(graph))

    def keeps(removal: Removal) -> bool:
        if not last.isdisjoint(removal.layers):
            return False
        return not _sources(graph) or _dependence(graph, alive(graph, removal)) == whole

    return graph.select(lambda unit: keeps(unit.removal))


def severed(graph: Graph, mask: Mask) -> dict[str, tuple[str, ...]]:
    """The outputs that no longer depend on inputs on which they depend without the mask.

    Returns:
        By the name of what an output reads, the names of the inputs.
    """
    if not _sources(graph):
        return {}
    before, after = (_dependence(graph, found) for found in (alive(graph), liveness(graph, mask)))
    lost = {v: inputs & ~after.get(v, 0) for v, inputs in before.items()}
    names = [vertex.name for vertex in graph.vertices]
    return {
        names[v]: tuple(name for i, name in enumerate(names) if inputs >> i & 1)
        for v, inputs in lost.items()
        if inputs
    }


def _sources(graph: Graph) -> bool:
    """Whether outputs can come from elsewhere than from one input: constants, or further inputs.

    If not, an output that is there depends on it.
    """
    return sum(not edges for edges in graph.inputs) > 1


def _dependence(graph: Graph, found: Liveness) -> dict[int, int]:
    """For each vertex that an output reads, the inputs that reach it, a bit each."""
    reach = [0] * len(graph.vertices)
    for index, (vertex, edges) in enumerate(zip(graph.vertices, graph.inputs, strict=True)):
        live = (reach[graph.edges[e].source] for e in edges if found.wants[e] is not None)
        reach[index] = 1 << index if vertex.op == "input" else reduce(or_, live, 0)
    outputs = (i for i, vertex in enumerate(graph.vertices) if vertex.op == "output")
    return {s: reach[s] for i in outputs for e in graph.inputs[i] for s in [graph.edges[e].source]}


def _heads(graph: Graph) -> frozenset[int]:
    """The last layer before each output, if every path to the output leads through it."""
    found = set()
    for index, vertex in enumerate(graph.vertices):
        if vertex.op != "output":
            continue
        for edge in graph.inputs[index]:
            at = graph.edges[edge].source
            while not (graph.vertices[at].params and full_macs(graph, at)):
                if len(graph.inputs[at]) != 1:
                    break
                at = graph.edges[graph.inputs[at][0]].source
            else:
                found.add(at)
    return frozenset(found)
