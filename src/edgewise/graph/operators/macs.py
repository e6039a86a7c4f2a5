"""Multiply-accumulates of operators, for one example, given what remains of inputs and output."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..vertices import Shape, Vertex
from .states import Live, Shapes, States, elements

MacFunction = Callable[[Vertex, States, Live, Shapes], int]
Line = Sequence[Any]  # a boolean, or a literal, for each channel of an axis
Term = tuple[float, list[Line]]  # a coefficient, times the live channels of each line
Factors = Callable[[Vertex, Sequence[Any], Any, Shapes], list[Term]]


@dataclass(frozen=True)
class Macs:
    """A count that is a sum of products, each factor of which a solver can use.

    Args:
        factors: the terms of the sum, given the vertex, what remains of its inputs and of its
            output (booleans or literals), and the shapes of its inputs.
    """

    factors: Factors

    def __call__(self, vertex: Vertex, ins: States, out: Live, shapes: Shapes) -> int:
        terms = self.factors(vertex, ins, out, shapes)
        return sum(int(c) * math.prod(line.count(True) for line in lines) for c, lines in terms)


def term(shape: Shape, lines: Sequence[Line | None], coefficient: float = 1) -> Term:
    """A coefficient times the live channels of every axis, of which `lines` names those that go."""
    pairs = list(zip(shape, lines, strict=True))
    whole = math.prod(size if line is None else size // len(line) for size, line in pairs)
    return coefficient * whole, [line for _, line in pairs if line is not None]


def of_shape(shape: Shape, state: Any, coefficient: float = 1) -> Term:
    """A coefficient times the live elements of a tensor."""
    lines = [None if state is None else state.keep(axis) for axis in range(len(shape))]
    return term(shape, lines, coefficient)


def _times(product: Term, size: int, line: Line | None) -> Term:
    coefficient, lines = product
    return (coefficient * size, lines) if line is None else (coefficient, [*lines, line])


@Macs
def no_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    return []


@Macs
def conv_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    assert vertex.shape is not None
    if shapes[0] is None or ins[0] is None:
        return []
    groups, kernel = int(vertex.attrs["groups"]), int(vertex.attrs["kernel"])
    if not kernel:  # the weight is data too
        return [(elements(vertex.shape) * math.prod((shapes[1] or (0, 0))[1:]), [])]
    line = ins[0].keep(1) if groups == 1 else None
    return [_times(of_shape(vertex.shape, out, kernel), shapes[0][1] // groups, line)]


@Macs
def conv_transpose_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    assert vertex.shape is not None
    if len(shapes) > 1 or shapes[0] is None or ins[0] is None:
        return []
    groups, kernel = int(vertex.attrs["groups"]), int(vertex.attrs["kernel"])
    line = out.keep(1) if groups == 1 else None
    return [_times(of_shape(shapes[0], ins[0], kernel), vertex.shape[1] // groups, line)]


@Macs
def linear_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    assert vertex.shape is not None
    if shapes[0] is None or ins[0] is None:
        return []
    line = ins[0].keep(len(shapes[0]) - 1)
    return [_times(of_shape(vertex.shape, out), shapes[0][-1], line)]


@Macs
def bilinear_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    """matmul of data, or of data and a constant: output elements times the inner size."""
    if vertex.shape is None:
        return []
    inner: Line | None = None
    for names, state in zip(vertex.attrs["labels"], ins, strict=True):
        keep = state.keep(names.index("k")) if state is not None and "k" in names else None
        inner = inner if keep is None else keep
    return [_times(of_shape(vertex.shape, out), int(vertex.attrs["inner"]), inner)]


@Macs
def einsum_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    """Operands are contracted one after another, from the left."""
    left, _, right = str(vertex.attrs["equation"]).replace(" ", "").partition("->")
    names = left.split(",")
    if "." in left or any(shape is None for shape in vertex.attrs["shapes"]):
        return []
    sizes = {
        letter: size
        for name, shape in zip(names, vertex.attrs["shapes"], strict=True)
        for letter, size in zip(name, shape, strict=True)
    }
    lines: dict[str, Line] = {}
    for number, state in zip(vertex.attrs["operands"], ins, strict=True):
        lines |= {names[number][a]: keep for a, keep in (state.keeps if state is not None else ())}
    found, held = list[Term](), set(names[0])
    for position, name in enumerate(names[1:], start=1):
        later = set(right).union(*names[position + 1 :])
        alone = (held ^ set(name)) - later  # summed before the product is taken
        together = sorted((held | set(name)) - alone)
        shape = tuple(sizes[x] for x in together)
        found.append(term(shape, [lines.get(x) for x in together]))
        held = later.intersection(together)
    return found


@Macs
def attention_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    """Every query times every key, and every score times every value."""
    if vertex.shape is None:
        return []
    count, depth = vertex.attrs.get("keys") or (shapes[1] or (0, 0))[-2:]
    last = len(vertex.shape) - 1
    scores = of_shape(vertex.shape[:-1], out.only(range(last)), count)
    lines = [state and state.keep(last) for state in (ins[0], out)]
    sizes = (depth, vertex.shape[-1])
    if not any(lines):
        return [_times(scores, sum(sizes), None)]
    return [_times(scores, size, line) for size, line in zip(sizes, lines, strict=True)]


@Macs
def multihead_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    embed = int(vertex.attrs["embed"])
    query, key = shapes[0], shapes[1] if len(shapes) > 1 else shapes[0]
    value = shapes[2] if len(shapes) > 2 else key
    if query is None or key is None or value is None:
        return []
    axis = (1 if vertex.attrs["batch_first"] else 0) - (3 - len(query))
    length, source = query[max(axis, 0)], key[max(axis, 0)]
    rows = math.prod(query[:-1])
    project = rows * query[-1] * embed + math.prod(key[:-1]) * key[-1] * embed
    project += math.prod(value[:-1]) * value[-1] * embed + rows * embed * embed
    return [(project + 2 * (rows // length) * length * source * embed, [])]


@Macs
def recurrent_macs(vertex: Vertex, ins: Sequence[Any], out: Any, shapes: Shapes) -> list[Term]:
    """LSTM, GRU and RNN: every step multiplies the weights of all layers and directions."""
    if not shapes or shapes[0] is None:
        return []
    steps, states = math.prod(shapes[0][:-1]), {"in": ins[0], "out": out}
    return [
        term(p.shape, [f and states[f[0]] and states[f[0]].keep(f[1]) for f in p.follows], steps)
        for p in vertex.params
        if len(p.shape) == 2
    ]
