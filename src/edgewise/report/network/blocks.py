"""Vertices drawn as one box: chains contracted, labelled by their common module path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...graph.blocks import shared_path
from ...graph.cost import full_macs, weight
from ...graph.graph import Graph
from ...graph.liveness import Liveness
from ...graph.vertices import Shape

Form = Literal["box", "pill", "joint"]

SIGNS = {
    "add": "+",
    "sub": "\N{MINUS SIGN}",
    "mul": "\N{MULTIPLICATION SIGN}",
    "div": "\N{DIVISION SIGN}",
}
LETTERS = 32
FEW = 20  # in a pill: several often stand side by side
SPANS = (slice(None), slice(2), slice(-1, None))  # of a name: all, its head, its last part


@dataclass(frozen=True, slots=True)
class Block:
    """A chain of vertices drawn as one.

    Args:
        vertices: their indices, in order.
        form: "box" where there are parameters or MACs, "joint" for a sum or product, else "pill".
        label: what stands in the box.
        shape: of the last vertex.
        batched: the batch dimensions of `shape`.
        params: parameter elements.
        macs: multiply-accumulates for one example, unpruned.
    """

    vertices: tuple[int, ...]
    form: Form
    label: str
    shape: Shape | None
    batched: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Link:
    """An edge of the graph between two blocks (indices of blocks and of the edge)."""

    source: int
    target: int
    edge: int


def contract(graph: Graph) -> tuple[tuple[Block, ...], tuple[Link, ...]]:
    """The graph's blocks in topological order of their first vertex, and the edges between."""
    chains = _chains(graph)
    owner = {vertex: i for i, chain in enumerate(chains) for vertex in chain}
    links = tuple(
        Link(owner[edge.source], owner[edge.target], index)
        for index, edge in enumerate(graph.edges)
        if owner[edge.source] != owner[edge.target]
    )
    return tuple(_block(graph, chain) for chain in chains), links


def _chains(graph: Graph) -> list[list[int]]:
    chain_of: dict[int, list[int]] = {}
    for index in range(len(graph.vertices)):
        before = _joins(graph, index, chain_of)
        chain_of[index] = chain_of[before] if before is not None else []
        chain_of[index].append(index)
    distinct = {id(chain): chain for chain in chain_of.values()}
    return sorted(distinct.values(), key=lambda chain: chain[0])


def _joins(graph: Graph, index: int, chain_of: dict[int, list[int]]) -> int | None:
    """The vertex whose chain this one goes on, if there is one."""
    vertex, inputs = graph.vertices[index], graph.inputs[index]
    if len(inputs) != 1 or vertex.op == "output":
        return None
    source = graph.edges[inputs[0]].source
    if len(graph.consumers[source]) != 1 or graph.vertices[source].op == "input":
        return None
    head = graph.vertices[chain_of[source][0]]
    if head.op in SIGNS and vertex.op not in ("pointwise", "identity"):
        return None  # what follows a sum is drawn by itself, so that the sum stays a small joint
    return source


def _block(graph: Graph, chain: Sequence[int]) -> Block:
    first, last = graph.vertices[chain[0]], graph.vertices[chain[-1]]
    params = sum(weight(graph.vertices[i]) for i in chain)
    macs = sum(full_macs(graph, i) for i in chain)
    form: Form = "box" if params or macs or first.op in ("input", "output") else "pill"
    label = _label(graph, chain)
    if first.op in SIGNS and not params:
        form, label = "joint", SIGNS[first.op]
    if form == "pill":
        label = shorten(label, FEW)
    return Block(tuple(chain), form, label, last.shape, last.batched, params, macs)


def _label(graph: Graph, chain: Sequence[int]) -> str:
    """The module path that the chain's layers share, or its first and last layer."""
    names = [graph.vertices[i].name for i in chain if graph.vertices[i].params]
    names = names or [graph.vertices[i].name for i in chain]
    common = shared_path(names)
    within = sum(shared_path([common, v.name]) == common for v in graph.vertices if v.params)
    if common and (len(names) == 1 or within < 2 * len(names)):
        return shorten(common)
    if common:
        first, last = (n.removeprefix(f"{common}.").split(".")[0] for n in (names[0], names[-1]))
        return shorten(f"{common}.{first}…{last}")
    ends = [name.split(".") for name in (names[0], names[-1])]
    spans = [" … ".join(".".join(end[part]) for end in ends) for part in SPANS]
    return next((span for span in spans if len(span) <= LETTERS), shorten(spans[-1]))


def shorten(name: str, letters: int = LETTERS) -> str:
    """A name without its leading path components, or cut, so that it fits."""
    parts = name.split(".")
    while len(parts) > 1 and len(".".join(parts)) > letters:
        parts.pop(0)
    short = ".".join(parts)
    return short if len(short) <= letters else f"{short[: letters - 1]}…"


@dataclass(frozen=True, slots=True)
class Membership:
    """Which units are drawn where.

    Args:
        edges: edge → unit.
        layers: vertex → the unit that bypasses it or takes channels from it.
    """

    edges: dict[int, int]
    layers: dict[int, int]


def membership(graph: Graph) -> Membership:
    """The unit of every edge and of every vertex that is bypassed or loses channels."""
    found = Membership({}, {})
    for index, unit in enumerate(graph.units):
        for edge in unit.removal.edges:
            found.edges.setdefault(edge, index)
        for vertex in unit.removal.vertices:
            found.layers.setdefault(vertex, index)
    return found


def units_of(graph: Graph, block: Block, members: Membership) -> tuple[int, ...]:
    """The units whose removal takes the block or a part of it away."""
    inside, joint = set(block.vertices), len(graph.inputs[block.vertices[0]]) > 1
    edges: list[int] = []
    for index in block.vertices:
        into, out = graph.inputs[index], graph.consumers[index]
        edges += [e for e in into if graph.edges[e].source in inside or len(into) == 1]
        edges += [e for e in out if len(out) == 1 and not joint]
    found = [members.edges[e] for e in edges if e in members.edges]
    found += [members.layers[v] for v in block.vertices if v in members.layers]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Fate:
    """What a mask does to a block.

    Args:
        dead: nothing of it is left.
        bypassed: vertices that pass their input on unchanged.
        forwarded: it had several inputs, one is left, and passes through.
        kept: for vertices that lost channels, how many remain of how many.
    """

    dead: bool
    bypassed: tuple[int, ...]
    forwarded: bool
    kept: Mapping[int, tuple[int, int]] = field(default_factory=dict)


def fates(blocks: Sequence[Block], rest: Liveness) -> list[Fate]:
    """What becomes of each block."""
    return [
        Fate(
            all(rest.states[i] is None for i in block.vertices),
            tuple(i for i in block.vertices if i in rest.bypassed),
            rest.forwarded.issuperset(
                block.vertices[:1] if block.form == "joint" else block.vertices
            ),
            {
                i: (keep.count(True), len(keep))
                for i in block.vertices
                if (state := rest.states[i]) is not None
                for _, keep in state.keeps
            },
        )
        for block in blocks
    ]
