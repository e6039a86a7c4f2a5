"""Repeated blocks drawn as one box: modules in a row with the same structure, whole in the plan."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ...graph.graph import Graph
from .blocks import Block, Link

LEAST = 6  # blocks that are worth a box
_NUMBER = re.compile(r"\d+(?=\D*$)")  # the last one of a path


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks `start` to `stop` (not included) are `times` modules of the same structure.

    Args:
        first, last: paths of the first and the last module.
        label: "12 × layer3.N".
    """

    start: int
    stop: int
    times: int
    first: str
    last: str
    label: str


@dataclass(frozen=True, slots=True)
class View:
    """Some of the blocks as they are, some runs as one box, in topological order.

    Args:
        blocks: what is drawn.
        links: between them, by their position in `blocks`.
        sources: for each drawn block the one that it is, or the run that it stands for.
    """

    blocks: tuple[Block, ...]
    links: tuple[Link, ...]
    sources: tuple[int | Run, ...]


def runs(
    graph: Graph, blocks: Sequence[Block], links: Sequence[Link], touched: Sequence[bool]
) -> tuple[Run, ...]:
    """Where modules repeat one after the other.

    They are the graph's own blocks (`graph.blocks`). Two are the same if the operators, shapes,
    parameters and MACs of all that is drawn in them are, and if their inputs come from equally far
    before them.

    Args:
        graph: the traced network.
        blocks: in topological order.
        links: between them.
        touched: by block, whether the plan changes it; such a block is in no run.

    Returns:
        Runs that do not overlap, in order.
    """
    looks = _looks(graph, blocks, links, touched)
    paths = {vertex: block.path for block in graph.blocks for vertex in block.vertices}
    inside = groupby(range(len(blocks)), lambda index: paths.get(blocks[index].vertices[0], ""))
    parts = [(path, [*indices]) for path, indices in inside]
    alike = groupby(parts, lambda part: (_NUMBER.sub("N", part[0]), *(looks[i] for i in part[1])))
    found = (_run([path for path, _ in same], [i for _, part in same for i in part])
             for same in ([*group] for _, group in alike))  # fmt: skip
    return tuple(run for run in found if run)


def _run(paths: Sequence[str], blocks: Sequence[int]) -> Run | None:
    """Modules that look alike as a run, if it is long enough."""
    if len(paths) < 2 or not paths[0] or len(blocks) < LEAST:
        return None
    label = f"{len(paths)} \N{MULTIPLICATION SIGN} {_NUMBER.sub('N', paths[0])}"
    return Run(blocks[0], blocks[-1] + 1, len(paths), paths[0], paths[-1], label)


def _looks(
    graph: Graph, blocks: Sequence[Block], links: Sequence[Link], touched: Sequence[bool]
) -> list[Hashable]:
    """What must agree, by block; that of a touched block agrees with no other."""
    reach: list[list[int]] = [[] for _ in blocks]
    for link in links:
        reach[link.target].append(link.target - link.source)
    return [
        index
        if changed
        else (
            tuple((graph.vertices[v].op, graph.vertices[v].shape) for v in block.vertices),
            block.params,
            block.macs,
            tuple(reach[index]),
        )
        for index, (block, changed) in enumerate(zip(blocks, touched, strict=True))
    ]


def closed(blocks: Sequence[Block], links: Sequence[Link], found: Sequence[Run]) -> View:
    """Everything, each run as one box."""
    sources: list[int | Run] = []
    owner: dict[int, int] = {}
    inside = {index: run for run in found for index in range(run.start, run.stop)}
    for index in range(len(blocks)):
        run = inside.get(index)
        if run is None or index == run.start:
            sources.append(index if run is None else run)
        owner[index] = len(sources) - 1
    drawn = [blocks[s] if isinstance(s, int) else _one(blocks, s) for s in sources]
    return View(tuple(drawn), _moved(links, owner), tuple(sources))


def opened(blocks: Sequence[Block], links: Sequence[Link], run: Run) -> View:
    """The blocks of one run between those that it reads and those that read it."""
    inner = range(run.start, run.stop)
    mine = [link for link in links if link.source in inner or link.target in inner]
    shown = sorted({end for link in mine for end in (link.source, link.target)} | set(inner))
    owner = {index: at for at, index in enumerate(shown)}
    return View(tuple(blocks[i] for i in shown), _moved(mine, owner), tuple(shown))


def _one(blocks: Sequence[Block], run: Run) -> Block:
    parts = blocks[run.start : run.stop]
    vertices = tuple(vertex for block in parts for vertex in block.vertices)
    params, macs = sum(b.params for b in parts), sum(b.macs for b in parts)
    return Block(vertices, "box", run.label, parts[-1].shape, parts[-1].batched, params, macs)


def _moved(links: Sequence[Link], owner: dict[int, int]) -> tuple[Link, ...]:
    """Links between drawn blocks; into or out of a run's box one line each."""
    crowds = {at for at, count in Counter(owner.values()).items() if count > 1}
    found: dict[tuple[int, ...], Link] = {}
    for link in links:
        source, target = owner[link.source], owner[link.target]
        merged = source in crowds or target in crowds
        key = (source, target) if merged else (source, target, link.edge)
        if source != target:
            found.setdefault(key, Link(source, target, link.edge))
    return tuple(found.values())
