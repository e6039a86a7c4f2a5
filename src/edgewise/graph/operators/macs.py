"""Multiply-accumulates of operators, for one example, given what remains of inputs and output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..graph import Shape, Vertex
from .states import Live, States, elements

MacFunction = Callable[[Vertex, States, Live, Sequence[Shape | None]], int]


def no_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    return 0


def conv_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    assert vertex.shape is not None
    if shapes[0] is None or ins[0] is None:
        return 0
    if len(shapes) > 1:  # the weight is data too
        return elements(vertex.shape) * math.prod((shapes[1] or (0, 0))[1:])
    groups = int(vertex.attrs["groups"])
    inner = ins[0].shape(shapes[0])[1] if groups == 1 else shapes[0][1] // groups
    return math.prod(out.shape(vertex.shape)) * inner * int(vertex.attrs["kernel"])


def conv_transpose_macs(
    vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]
) -> int:
    assert vertex.shape is not None
    if len(shapes) > 1 or shapes[0] is None or ins[0] is None:
        return 0
    groups = int(vertex.attrs["groups"])
    outer = out.shape(vertex.shape)[1] if groups == 1 else vertex.shape[1] // groups
    return math.prod(ins[0].shape(shapes[0])) * outer * int(vertex.attrs["kernel"])


def linear_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    assert vertex.shape is not None
    if shapes[0] is None or ins[0] is None:
        return 0
    return math.prod(out.shape(vertex.shape)) * ins[0].shape(shapes[0])[-1]


def bilinear_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    """matmul of data, or of data and a constant: output elements times the inner size."""
    if vertex.shape is None:
        return 0
    inner = int(vertex.attrs["inner"])
    for names, state in zip(vertex.attrs["labels"], ins, strict=True):
        keep = state.keep(names.index("k")) if state is not None and "k" in names else None
        inner = inner if keep is None else keep.count(True)
    return math.prod(out.shape(vertex.shape)) * inner


def einsum_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    """Operands are contracted one after another, from the left."""
    left, _, right = str(vertex.attrs["equation"]).replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in left or any(shape is None for shape in vertex.attrs["shapes"]):
        return 0
    sizes = {
        letter: size
        for term, shape in zip(terms, vertex.attrs["shapes"], strict=True)
        for letter, size in zip(term, shape, strict=True)
    }
    for number, state in zip(vertex.attrs["operands"], ins, strict=True):
        for axis, keep in state.keeps if state is not None else ():
            sizes[terms[number][axis]] = keep.count(True)
    total, held = 0, set(terms[0])
    for position, term in enumerate(terms[1:], start=1):
        later = set(right).union(*terms[position + 1 :])
        alone = (held ^ set(term)) - later  # summed before the product is taken
        together = (held | set(term)) - alone
        total += math.prod(sizes[letter] for letter in together)
        held = together & later
    return total


def attention_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    if len(shapes) < 3 or shapes[0] is None or shapes[1] is None or vertex.shape is None:
        return 0
    query = shapes[0] if ins[0] is None else ins[0].shape(shapes[0])
    scores = math.prod(query[:-1]) * shapes[1][-2]
    return scores * (query[-1] + out.shape(vertex.shape)[-1])


def multihead_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    embed = int(vertex.attrs["embed"])
    query, key = shapes[0], shapes[1] if len(shapes) > 1 else shapes[0]
    value = shapes[2] if len(shapes) > 2 else key
    if query is None or key is None or value is None:
        return 0
    axis = (1 if vertex.attrs["batch_first"] else 0) - (3 - len(query))
    length, source = query[max(axis, 0)], key[max(axis, 0)]
    rows = math.prod(query[:-1])
    project = rows * query[-1] * embed + math.prod(key[:-1]) * key[-1] * embed
    project += math.prod(value[:-1]) * value[-1] * embed + rows * embed * embed
    return project + 2 * (rows // length) * length * source * embed


def recurrent_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    """LSTM, GRU and RNN: every step multiplies the weights of all layers and directions."""
    if not shapes or shapes[0] is None:
        return 0
    steps = math.prod(shapes[0][:-1])
    return steps * sum(elements(p.shape) for p in vertex.params if len(p.shape) == 2)
