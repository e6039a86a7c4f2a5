"""What a network costs under a mask, counted on exactly what the rewrite would emit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from .graph import Cost, Graph, Mask, once
from .liveness import Liveness, liveness
from .operators.absence import FULL, Flow, Live, State, elements
from .operators.table import TABLE
from .remaining import unit_cuts, whole
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
    full, (counted, there) = _full(graph), _counted(graph, alive)
    params, macs, activations, weights = counted
    for size, itemsize, readers in full.tied:
        if any(map(alive.runs, readers)):
            params += size
            weights += size * itemsize
    macs += sum(size for size, readers in full.constant if any(map(alive.runs, readers)))
    units = sum(map(bool, there.values()))
    return Cost(units, params, macs, activations, weights)


class _Counted(NamedTuple):
    """What vertices cost; of units, at how many of them some is left."""

    total: Count
    there: Mapping[int, int]


def _counted(graph: Graph, alive: Liveness) -> _Counted:
    """What is left, counted by what it differs in from another liveness that is."""
    known, path = _known(graph), [alive]
    while path[-1] not in known and (near := path[-1].near()):
        path.append(near)
    near = path.pop()
    if near not in known:
        known[near] = _sum(
            [known[whole(graph)], *(_part(graph, one) for one in near.parts or [near])]
        )
    for alive in reversed(path):
        known[alive] = _sum([known[near], _more(graph, alive, near)])
        near = alive
    return known[near]


def _sum(counts: Sequence[_Counted]) -> _Counted:
    there = dict(counts[0].there)
    for _, more in counts[1:]:
        for unit, n in more.items():
            there[unit] += n
    return _Counted(Count(*map(sum, zip(*(total for total, _ in counts), strict=True))), there)


def _part(graph: Graph, part: Liveness) -> _Counted:
    """What a part leaves more than there is in the unpruned network, mostly less than nothing."""
    known = _known_parts(graph)
    if part not in known:
        known[part] = _more(graph, part, whole(graph))
    return known[part]


def _more(graph: Graph, alive: Liveness, near: Liveness) -> _Counted:
    """What one liveness leaves more than another one."""
    more, there, cuts = [_NOTHING], Counter[int](), unit_cuts(graph)
    changed = alive.before if alive.near() is near else alive.flows.keys() | near.flows.keys()
    for index in changed:
        more.append(count_at(graph, alive, index))
        more.append(Count(*[-n for n in count_at(graph, near, index)]))
        if index in cuts:
            there.update(_left(alive, index, cuts[index]))
            there.subtract(_left(near, index, cuts[index]))
    return _Counted(
        Count(*map(sum, zip(*more, strict=True))), {u: n for u, n in there.items() if n}
    )


@once
def _known_parts(_: Graph) -> WeakKeyDictionary[Liveness, _Counted]:
    return WeakKeyDictionary()


@once
def _known(graph: Graph) -> WeakKeyDictionary[Liveness, _Counted]:
    """What was counted; at first the unpruned network, all but what nobody reads."""
    there = Counter(unit for cuts in unit_cuts(graph).values() for unit, _ in cuts)
    every = _Counted(_full(graph).total, there)
    unpruned, full = whole(graph), Liveness(graph)
    known = WeakKeyDictionary[Liveness, _Counted]()
    known[unpruned] = _sum([every, _more(graph, unpruned, full)])
    return known


def count_at(graph: Graph, alive: Liveness, index: int) -> Count:
    """What one vertex costs of what remains."""
    flow = alive.flows.get(index)
    if flow is None:
        return full_count(graph, index)
    return count(graph, index, flow) if alive.runs(index) else _NOTHING


def count_changes(graph: Graph, alive: Liveness) -> Iterator[tuple[int, Count, Count]]:
    """What each vertex that a mask changes costs in the unpruned network, and then."""
    for index in alive.changed:
        yield index, full_count(graph, index), count_at(graph, alive, index)


class Count(NamedTuple):
    """What one vertex costs; parameters that other vertices read too are not its own."""

    params: int
    macs: int
    activation_bytes: int
    weight_bytes: int


_NOTHING = Count(0, 0, 0, 0)


class _Full(NamedTuple):
    """The unpruned network: each vertex, all of them, and what several vertices read.

    `tied` lists the elements of each such parameter, the bytes of one, and its readers; it is never
    cut. `constant` lists the MACs of each computation that only constants enter, and its readers.
    """

    vertices: tuple[Count, ...]
    total: Count
    tied: tuple[tuple[int, int, tuple[int, ...]], ...]
    constant: tuple[tuple[int, tuple[int, ...]], ...]


@once
def _full(graph: Graph) -> _Full:
    flows = [Flow(FULL, (FULL,) * len(edges)) for edges in graph.inputs]
    vertices = tuple(count(graph, index, flow) for index, flow in enumerate(flows))
    around = [getattr(graph.rest, name) for name in Count._fields]
    total = Count(*map(sum, zip(*vertices, around, strict=True)))
    known = {p.name: p for v in graph.vertices for p in v.params if not p.buffer}
    tied = (
        (elements(p.shape), p.itemsize, graph.readers[name])
        for name, p in known.items()
        if len(graph.readers[name]) > 1
    )
    return _Full(vertices, total, tuple(tied), _constant(graph))


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


def _left(alive: Liveness, index: int, cuts: Iterable[tuple[int, Removal]]) -> list[int]:
    """The units of which anything remains at a vertex, of what they take there."""
    flow = alive.flows.get(index)
    if flow is None:
        return [unit for unit, _ in cuts]
    if (out := flow.out) is None:
        return []
    wants = zip(alive.graph.inputs[index], flow.wants, strict=True)
    read = {edge for edge, want in wants if want is not None}
    return [
        unit
        for unit, cut in cuts
        if not read.isdisjoint(cut.edges)
        or not alive.layers.issuperset(cut.layers)
        or any(_some_live(out, axis, of) for (_, axis), of in cut.channels.items())
    ]


def _some_live(state: Live, axis: int, channels: Iterable[int]) -> bool:
    """Whether any of these channels of an output remains."""
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
