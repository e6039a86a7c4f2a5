"""The parts of a network as a person sees them: the modules that repeat, and what lies between."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, takewhile
from math import prod

from .cost import full_macs
from .graph import Graph, once
from .unit import Block
from .vertices import Vertex

_NUMBER, _AGAIN = re.compile(r"\d+"), re.compile(r"#\d+$")
_NUMBERED = re.compile(r"(?:[^.]+\.)?\d+(?:\.|$)|[^.]*\d")  # "layers.3", "layer1"
_ROLES = (
    ("cross-attention", re.compile(r"cross_?att|enc_?dec|encoder_att", re.IGNORECASE)),
    ("attention", re.compile(r"att(n|ention)", re.IGNORECASE)),
    ("mlp", re.compile(r"mlp|ffn?$|feed_?forward|relu_?dense", re.IGNORECASE)),
)


@once
def blocks_of(graph: Graph) -> tuple[Block, ...]:
    """The blocks of a graph in topological order of their first vertex; each vertex is in one.

    A module is a block if it has a number in its name, and layers in common with a sibling whose
    name differs in numbers alone: two that take MACs, or one and a place where data meet. The
    innermost counts. What lies between two blocks is one, too.
    """
    repeated, names = _repeated(graph), Names(graph)
    groups: dict[str | int, list[int]] = {}
    last: str | int = -1
    for index, vertex in enumerate(graph.vertices):
        paths = [path for path in prefixes(vertex.name) if path in repeated]
        last = paths[-1] if paths else last if isinstance(last, int) else index
        groups.setdefault(last, []).append(index)
    seen: Counter[str] = Counter()
    blocks = []
    for key, vertices in groups.items():
        block = _block(graph, names, "" if isinstance(key, int) else key, vertices)
        seen[block.label] += 1
        again = f"#{seen[block.label]}" if seen[block.label] > 1 else ""
        blocks.append(replace(block, label=block.label + again))
    return tuple(blocks)


def _block(graph: Graph, names: Names, path: str, vertices: list[int]) -> Block:
    layers = [i for i in vertices if graph.vertices[i].params] or vertices
    ends = dict.fromkeys(names.short(module(graph.vertices[i])) for i in (layers[0], layers[-1]))
    params = {p.name: p.shape for i in layers for p in graph.vertices[i].params if not p.buffer}
    return Block(
        path,
        names.short(path) if path else " … ".join(ends),
        tuple(vertices),
        sum(map(prod, params.values())),
        sum(full_macs(graph, index) for index in vertices),
    )


def _repeated(graph: Graph) -> set[str]:
    """Paths of modules that have siblings like them."""
    work: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    meets: set[str] = set()
    for index, vertex in enumerate(graph.vertices):
        paths = prefixes(vertex.name)
        if len(graph.inputs[index]) > 1:
            meets.update(paths)
        if not (vertex.params and full_macs(graph, index)):
            continue
        for path in paths:
            above, _, own = path.rpartition(".")
            if _NUMBER.search(own) and not role(own):
                within = _bare(vertex.name).removeprefix(path)
                work[above, _NUMBER.sub("", own)][path].add(within)
    found: set[str] = set()
    for siblings in work.values():
        count = Counter(layer for layers in siblings.values() for layer in layers)
        for path, layers in siblings.items():
            shared = sum(count[layer] > 1 for layer in layers)
            if shared > 1 or (shared and path in meets):
                found.add(path)
    return found


def role(module: str) -> str:
    """What a module of this name is for, if that can be told: "attention", "mlp" …"""
    known = (word for word, pattern in _ROLES if pattern.search(module))
    return "" if "norm" in module.lower() else next(known, "")


def attends(graph: Graph, vertices: Iterable[int]) -> bool:
    """Whether there is an attention among some vertices."""
    ops = Counter(graph.vertices[index].op for index in vertices)
    fused = ops["attention"] + ops["multihead_attention"]
    return bool(fused or (ops["softmax"] and ops["matmul"] + ops["einsum"] > 1))


def prefixes(name: str) -> list[str]:
    """The paths of the modules that something lies in, the outermost first."""
    return list(accumulate(name.split(".")[:-1], lambda path, part: f"{path}.{part}"))


def shared_path(names: Sequence[str]) -> str:
    """The longest module path that all names start with."""
    first, *others = (name.split(".") for name in names)
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(first, *others, strict=False))
    return ".".join(parts[0] for parts in shared)


def module(vertex: Vertex) -> str:
    """The path of the module that a vertex is, or that calls it; its own name at the top."""
    name = _bare(vertex.name)
    return name if vertex.module else name.rpartition(".")[0] or name


def _bare(name: str) -> str:
    return _AGAIN.sub("", name)


class Names:
    """The shortest by which the modules and operators of a graph are known."""

    def __init__(self, graph: Graph) -> None:
        names = (_bare(vertex.name) for vertex in graph.vertices)
        paths = {path for name in names for path in (*prefixes(name), name)}
        self._count = Counter(suffix for path in paths for suffix in _suffixes(path))

    def short(self, path: str) -> str:
        """The path without leading parts: no other ends so, and numbers and their names stay."""
        rest = _NUMBERED.search(path)
        least = len(path) - rest.start() if rest else 0
        return next((s for s in _suffixes(path) if len(s) >= least and self._count[s] == 1), path)


def _suffixes(path: str) -> Iterator[str]:
    """What a path ends with, the shortest first."""
    parts = path.split(".")
    return (".".join(parts[start:]) for start in reversed(range(len(parts))))
