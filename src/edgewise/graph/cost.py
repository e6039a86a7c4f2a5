"""What a network costs under a mask, counted on exactly what the rewrite would emit."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .graph import Cost, Graph, Mask, once
from .liveness import Liveness, liveness
from .operators.absence import FULL, Flow, Live, State, elements
from .operators.table import TABLE
from .pieces import Piece, unused
from .removal import Removal
from .vertices import Follow, Parameter, Vertex


def cost(graph: Graph, mask: Mask | None = None) -> Cost:
    """The cost of what remains of the graph under a mask, for one example; of a part: of the whole.

    Args:
        graph: the traced graph.
        mask: what is removed; None = nothing.

    Returns:
        Live units, parameters, MACs, activation and weight bytes of the pruned network, exactly.

    Raises:
        MaskError: the mask belongs to another graph.
        DisconnectedError: the mask cuts off a model output.

    Examples:
        >>> ew.cost(graph).params == sum(p.numel() for p in model.parameters())
        True
    """
    alive = liveness(graph, graph.empty if mask is None else mask)
    return cost_of(graph, alive.require_connected())


def cost_of(graph: Graph, alive: Liveness) -> Cost:
    """As `cost`, for a liveness that is known already."""
    full, known = _full(graph), _known(graph)
    for piece in alive.pieces:
        if piece not in known:
            known[piece] = _part(graph, piece)
    parts = [known[piece] for piece in alive.pieces]
    params, macs, activations, weights = map(
        sum, zip(full.total, *(part.more for part in parts), strict=True)
    )
    for size, itemsize, readers in full.tied:
        if _any_runs(alive, readers):
            params += size
            weights += size * itemsize
    macs += sum(size for size, readers in full.constant if _any_runs(alive, readers))
    return Cost(_live_units(graph, alive, parts), params, macs, activations, weights)


def _any_runs(alive: Liveness, vertices: Iterable[int]) -> bool:
    return any(all(p.runs(v) for p in alive.pieces if v in p.changed) for v in vertices)


class _Part(NamedTuple):
    """What one piece adds to the counts of the unpruned network, mostly less than nothing.

    `gone` are the units of which it leaves nothing, `partly` others that it takes a part of.
    """

    more: Count
    gone: frozenset[int]
    partly: frozenset[int]


@once
def _known(_: Graph) -> WeakKeyDictionary[Piece, _Part]:
    return WeakKeyDictionary()


def _part(graph: Graph, piece: Piece) -> _Part:
    own = dict(piece.own)
    gone = _full(graph).table[list(own)].sum(axis=0).tolist()
    counts = [count(graph, i, flow) for i, flow in own.items() if piece.runs(i)]
    left = map(sum, zip(_NOTHING, *counts, strict=True))
    alone, places = Liveness(graph, (piece,)), _places(graph)
    near = frozenset(unit for vertex in piece.changed for unit in places.get(vertex, ()))
    missed = frozenset(unit for unit in near if _gone(alone, graph.units[unit].removal))
    return _Part(Count(*(a - b for a, b in zip(left, gone, strict=True))), missed, near - missed)


def count_changes(graph: Graph, alive: Liveness) -> Iterator[tuple[int, Count, Count]]:
    """What each vertex that a mask changes costs in the unpruned network, and then."""
    vertices = _full(graph).vertices
    for index, flow in alive.changed.items():
        after = count(graph, index, flow) if alive.runs(index) else _NOTHING
        yield index, vertices[index], after


class Count(NamedTuple):
    """What one vertex costs; parameters that other vertices read too are not its own."""

    params: int
    macs: int
    activation_bytes: int
    weight_bytes: int


_NOTHING = Count(0, 0, 0, 0)


class _Full(NamedTuple):
    """The unpruned network: each vertex, all that are used, and what several vertices read.

    `table` has a row for each vertex.
    `tied` lists the elements of each such parameter, the bytes of one, and its readers; it is never
    cut. `constant` lists the MACs of each computation that only constants enter, and its readers.
    """

    vertices: tuple[Count, ...]
    table: NDArray[np.int64]
    total: Count
    tied: tuple[tuple[int, int, tuple[int, ...]], ...]
    constant: tuple[tuple[int, tuple[int, ...]], ...]


@once
def _full(graph: Graph) -> _Full:
    flows = [Flow(FULL, (FULL,) * len(edges)) for edges in graph.inputs]
    vertices = tuple(count(graph, index, flow) for index, flow in enumerate(flows))
    around = [getattr(graph.rest, name) for name in Count._fields]
    never = unused(graph)
    used = (vertex for index, vertex in enumerate(vertices) if index not in never)
    total = Count(*map(sum, zip(*used, around, strict=True)))
    known = {p.name: p for v in graph.vertices for p in v.params if not p.buffer}
    tied = (
        (elements(p.shape), p.itemsize, graph.readers[name])
        for name, p in known.items()
        if len(graph.readers[name]) > 1
    )
    table = np.array(vertices, np.int64).reshape(-1, len(Count._fields))
    return _Full(vertices, table, total, tuple(tied), _constant(graph))


def _constant(graph: Graph) -> tuple[tuple[int, tuple[int, ...]], ...]:
    readers: dict[tuple[str, int], list[int]] = {}
    for index, vertex in enumerate(graph.vertices):
        for entry in vertex.constant_macs:
            readers.setdefault(entry, []).append(index)
    return tuple((macs, tuple(indices)) for (_, macs), indices in readers.items())


def count(graph: Graph, index: int, flow: Flow) -> Count:
    """What one vertex costs that gives and takes what a flow says."""
    vertex, out = graph.vertices[index], flow.out
    assert out is not None
    rule = TABLE.rules[vertex.op]
    inner = flow.wants[0] if flow.wants else None
    own = [p for p in vertex.params if not p.buffer and len(graph.readers[p.name]) == 1]
    sizes = {p.name: math.prod(live_shape(p, inner, out)) for p in own}
    shape = None if rule.view or vertex.op in ("input", "output") else vertex.shape
    return Count(
        params=sum(sizes.values()),
        macs=rule.macs(vertex, flow.wants, out, graph.input_shapes[index]),
        activation_bytes=0 if shape is None else math.prod(out.shape(shape)) * vertex.itemsize,
        weight_bytes=sum(sizes[p.name] * p.itemsize for p in own),
    )


def live_shape(parameter: Parameter, inner: State, outer: Live) -> tuple[int, ...]:
    """The shape of what remains of a parameter."""
    return tuple(
        size if keep is None else keep.count(True)
        for size, keep in zip(parameter.shape, live_slices(parameter, inner, outer), strict=True)
    )


def inner_outer(graph: Graph, alive: Liveness, index: int) -> tuple[State, Live]:
    """What remains of the input and the output of a vertex that is there."""
    edges, outer = graph.inputs[index], alive.states[index]
    assert outer is not None
    return (alive.wants[edges[0]] if edges else None), outer


def live_slices(
    parameter: Parameter, inner: State, outer: Live
) -> tuple[tuple[bool, ...] | None, ...]:
    """For each dimension of a parameter, which entries remain (None = all).

    A dimension of several times the channels has them once for each gate.
    """
    lines = followed(parameter.follows, inner, outer)
    pairs = zip(parameter.shape, lines, strict=True)
    return tuple(line and line * (size // len(line)) for size, line in pairs)


def followed(
    follows: Iterable[Follow], inner: State, outer: Live
) -> tuple[tuple[bool, ...] | None, ...]:
    """What remains along axes that follow those of a vertex's input and output."""
    return tuple(_kept(follow, inner, outer) for follow in follows)


def _kept(follow: Follow, inner: State, outer: Live) -> tuple[bool, ...] | None:
    if follow is None:
        return None
    state = inner if follow[0] == "in" else outer
    return None if state is None else state.keep(follow[1])


def _live_units(graph: Graph, alive: Liveness, parts: Sequence[_Part]) -> int:
    gone = frozenset[int]().union(*(part.gone for part in parts))
    # several pieces may together leave nothing of what each takes a part of
    several = Counter(unit for part in parts for unit in part.partly - gone)
    more = (u for u, n in several.items() if n > 1 and _gone(alive, graph.units[u].removal))
    return len(graph.units) - len(gone) - len(list(more))


@once
def _places(graph: Graph) -> dict[int, list[int]]:
    """The units that have a part at each vertex: an edge into it, itself, or its channels."""
    found = defaultdict[int, list[int]](list)
    for index, unit in enumerate(graph.units):
        targets = (graph.edges[edge].target for edge in unit.removal.edges)
        for vertex in {*unit.removal.vertices, *targets}:
            found[vertex].append(index)
    return found


def _gone(alive: Liveness, removal: Removal) -> bool:
    return (
        all(alive.wants[edge] is None for edge in removal.edges)
        and all(v in alive.bypassed or alive.states[v] is None for v in removal.layers)
        and not any(_some_live(alive, *cut) for cut in removal.channels.items())
    )


def _some_live(alive: Liveness, place: tuple[int, int], channels: Iterable[int]) -> bool:
    """Whether any of these channels of a vertex's output remains."""
    vertex, axis = place
    state = alive.states[vertex]
    if state is None or state is FULL:
        return state is FULL
    keep = state.keep(axis)
    return keep is None or any(keep[channel] for channel in channels)


def weight(vertex: Vertex) -> int:
    """Parameters that a vertex reads, in full."""
    return sum(elements(p.shape) for p in vertex.params if not p.buffer)


def full_count(graph: Graph, index: int) -> Count:
    """What one vertex costs in the unpruned network."""
    return _full(graph).vertices[index]


def full_macs(graph: Graph, index: int) -> int:
    """Multiply-accumulates of one vertex in the unpruned network."""
    return full_count(graph, index).macs


def read_by_several(graph: Graph, quantity: str) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """What is counted once, whichever of several vertices run: its amount, and these vertices."""
    full = _full(graph)
    found = {
        "params": tuple((size, readers) for size, _, readers in full.tied),
        "weight_bytes": tuple((size * width, readers) for size, width, readers in full.tied),
        "macs": full.constant,
    }
    return found.get(quantity, ())
