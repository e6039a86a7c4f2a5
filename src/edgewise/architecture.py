"""What a plan keeps of a network, so that another one can be told where it differs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from torch import nn

from .graph import Graph, Vertex


def parameters(graph: Graph) -> list[str]:
    """One line a parameter in the order in which operators read them: "stem.0.weight: 8x3x3x3"."""
    lines = [
        f"{parameter.name}: {_shape(parameter.shape)}"
        for vertex in graph.vertices
        for parameter in vertex.params
        if not parameter.buffer
    ]
    return list(dict.fromkeys(lines))


def operators(graph: Graph) -> list[str]:
    """One line an operator: its name, what it calls, the shape it gives and what it reads."""
    return [_line(graph, index, vertex) for index, vertex in enumerate(graph.vertices)]


def other_parameter(lines: Sequence[str], model: nn.Module) -> str | None:
    """The first parameter that a model lacks or has in another shape, in words; None if none.

    Args:
        lines: as `parameters` gives them.
        model: what may be another network.
    """
    own = {name: _size(p) for name, p in model.named_parameters(remove_duplicate=False)}
    for name, shape in (line.rsplit(": ", 1) for line in lines):
        if name not in own:
            return f"it has no parameter {name!r} ({shape})"
        if own[name] != shape:
            return f"parameter {name!r} is {own[name]} instead of {shape}"
    return None


def other_operator(lines: Sequence[str], graph: Graph) -> str | None:
    """The first operator that differs, in words; None if none does.

    Args:
        lines: as `operators` gives them.
        graph: of what may be another network.
    """
    pairs = enumerate(zip_longest(lines, operators(graph), fillvalue="none"), start=1)
    for number, (was, now) in pairs:
        if was != now:
            return f"operator {number} is {now!r} instead of {was!r}"
    return None


def _line(graph: Graph, index: int, vertex: Vertex) -> str:
    sources = (graph.vertices[graph.edges[edge].source].name for edge in graph.inputs[index])
    shape = "" if vertex.shape is None else f" {_shape(vertex.shape)}"
    return f"{vertex.name}: {vertex.target}{shape} of {', '.join(sources) or 'nothing'}"


def _size(parameter: nn.Parameter) -> str:
    lazy = isinstance(parameter, nn.UninitializedParameter)
    return "not initialised" if lazy else _shape(parameter.shape)


def _shape(sizes: Sequence[Any]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
