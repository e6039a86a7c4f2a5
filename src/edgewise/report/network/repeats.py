"""Repeated blocks drawn as one box: modules in a row with the same structure, whole in the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ...graph.graph import Graph
from .blocks import Block, Link, shared_path

LEAST = 6  # blocks that are worth a box
LONGEST = 64  # of one repetition


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

    Two blocks are the same if their operators, shapes, parameters and MACs are, and if their
    inputs come from equally far before them.

    Args:
        graph: the traced network.
        blocks: in topological order.
        links: between them.
        touched: by block, whether the plan changes it; such a block is in no run.

    Returns:
        Runs that do not overlap, in order.
    """
    looks = _looks(graph, blocks, links, touched)
    found: list[Run] = []
    at = 0
    while at < len(blocks):
        run = _longest(graph, blocks, looks, at)
        found += [run] if run else []
        at = run.stop if run else at + 1
    return tuple(found)


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


def _longest(
    graph: Graph, blocks: Sequence[Block], looks: Sequence[Hashable], start: int
) -> Run | None:
    """The run from here that takes most blocks, in its most repetitions."""
    best = None
    for period in range(1, min(LONGEST, (len(blocks) - start) // 2) + 1):
        times = _times(looks, start, period)
        run = _named(graph, blocks, start, period, times) if times > 1 else None
        if run and run.stop - start >= LEAST and (best is None or run.stop > best.stop):
            best = run
    return best


def _times(looks: Sequence[Hashable], start: int, period: int) -> int:
    """How often the blocks from `start` come one after the other."""
    at = start + period
    while at < len(looks) and looks[at] == looks[at - period]:
        at += 1
    return (at - start) // period


def _named(
    graph: Graph, blocks: Sequence[Block], start: int, period: int, times: int
) -> Run | None:
    """The run, if each repetition is a module and their paths differ in one number."""
    stop = start + period * times
    paths = [_path(graph, blocks[at : at + period]) for at in range(start, stop, period)]
    if len({len(path) for path in paths}) > 1:
        return None
    moving = [part for part, names in enumerate(zip(*paths, strict=True)) if len(set(names)) > 1]
    if len(moving) != 1 or not all(path[moving[0]].isdigit() for path in paths):
        return None
    first, last = (".".join(paths[i][: moving[0] + 1]) for i in (0, -1))
    name = ".".join([*paths[0][: moving[0]], "N"])
    return Run(start, stop, times, first, last, f"{times} \N{MULTIPLICATION SIGN} {name}")


def _path(graph: Graph, blocks: Sequence[Block]) -> list[str]:
    """The module path that the layers of some blocks share."""
    layers = [graph.vertices[v] for block in blocks for v in block.vertices]
    names = [v.name for v in layers if v.params] or [v.name for v in layers]
    return shared_path(names).split(".")


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
