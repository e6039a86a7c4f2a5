"""Which channels stand or fall together: coupled producers, found in one pass over the graph.

Every channel that an operator with a weight of its own produces gets a number. The numbers travel
with the channels through the graph, each operator's coupling moving them as its flow moves
absence; where it needs two channels to be absent together (the summands of a residual stream, the
two sides of a gate, queries and keys of a head), their numbers are joined. What remains after the
pass are classes of channels. The analysis only proposes them: `liveness` decides what a removal
does, and `widths` offers no unit for which it does not do what is meant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .graph import Graph
from .operators.joining import Ids, Joining, Labels, weighted
from .operators.joining import Place as Place
from .operators.macs import no_macs
from .operators.table import TABLE
from .vertices import Vertex

COMPUTED = (
    "its weight is shared, or computed at every call as by spectral norm, which "
    "torch.nn.utils.parametrize.remove_parametrizations undoes"
)


@dataclass(frozen=True)
class Coupling:
    """Classes of channels that can only be removed together.

    Args:
        writes: where channels are produced, and the class of each (-1: cannot be removed).
        reads: where they are mixed into others, and the class of each.
        heads: classes that a product of tensors joined: attention heads.
        joined: classes that a sum or a concatenation joined: the channels of a residual stream.
        refused: why the channels of a vertex cannot be removed, by vertex.
    """

    writes: Mapping[Place, Ids]
    reads: Mapping[Place, Ids]
    heads: frozenset[int]
    joined: frozenset[int]
    refused: Mapping[int, str]


def couple(graph: Graph) -> Coupling:
    """The coupled channels of a graph."""
    joining, labels = Joining(), list[Labels]()
    for index, vertex in enumerate(graph.vertices):
        sources = [graph.edges[e].source for e in graph.inputs[index]]
        joining.enter(index, vertex, sources)
        passage, shapes = TABLE.rules[vertex.op].passage, graph.input_shapes[index]
        out = passage.couple(joining, vertex, shapes, [labels[source] for source in sources])
        if (axis := _produced(vertex)) is not None and (axis,) not in out:
            out[axis,] = joining.write(axis)
        labels.append(out)
    found, silent = _result(joining), dict[int, str]()
    known = {place.vertex for place in found.writes} | set(found.refused)
    for index, vertex in enumerate(graph.vertices):
        if _computed(vertex):
            silent[index] = COMPUTED
        elif index not in known and _layer(vertex):
            silent[index] = f"{vertex.name} ({vertex.op}) gives none that can be cut one by one"
    return replace(found, refused={**silent, **found.refused})


def _produced(vertex: Vertex) -> int | None:
    """The axis on which a vertex gives channels of its own making, that can be cut one by one."""
    if vertex.shared or vertex.attrs.get("groups", 1) > 1:
        return None
    return weighted(vertex) if TABLE.rules[vertex.op].passage.makes else None


def _computed(vertex: Vertex) -> bool:
    """Whether a vertex makes channels with a weight that is not its own alone."""
    makes = TABLE.rules[vertex.op].passage.makes and vertex.attrs.get("groups", 1) == 1
    return makes and bool(vertex.params) and (vertex.shared or weighted(vertex) is None)


def _layer(vertex: Vertex) -> bool:
    """Whether a vertex multiplies by a weight."""
    matrices = (p for p in vertex.params if len(p.shape) > 1 and not p.buffer)
    return TABLE.rules[vertex.op].macs is not no_macs and any(matrices)


def _result(joining: Joining) -> Coupling:
    classes = joining.classes()
    reasons: dict[int, str] = {}
    for ids, reason in joining.fixed:
        for one in np.unique(classes[np.ravel(ids)]):
            reasons.setdefault(int(one), reason)
    bad = np.array(sorted(reasons), dtype=np.intp)

    def found(ids: Ids) -> Ids:
        named = classes[ids]
        return np.where(np.isin(named, bad), -1, named)

    def marked(arrays: Iterable[Ids]) -> frozenset[int]:
        return frozenset(int(c) for ids in arrays for c in np.unique(classes[np.ravel(ids)]))

    refused = {}
    for place, ids in joining.writes.items():
        named = classes[ids]
        if np.isin(named, bad).all():
            refused[place.vertex] = reasons[int(named[0])]
    return Coupling(
        writes={place: found(ids) for place, ids in joining.writes.items()},
        reads={place: found(ids) for place, ids in joining.reads.items()},
        heads=marked(joining.heads),
        joined=marked(joining.joined),
        refused=refused,
    )
