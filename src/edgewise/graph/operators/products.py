"""Which axes of their operands products of tensors sum over, and where the others arrive.

An axis of the output has its number as label, one that is summed over a name of its own; an axis
without a label must be there in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..vertices import Follow, Shape
from .calls import Call, Constant, Follows, Slot, arriving

Label = int | str | None


def _shape(call: Call, argument: Any) -> Shape | None:
    """The shape, for one example, of a tensor argument."""
    if isinstance(argument, Slot):
        return call.shapes[argument.index]
    return argument.shape if isinstance(argument, Constant) else None


def _matrices(call: Call) -> list[Operand]:
    """The two operands of a product of matrices; vectors have no labels."""
    found: list[Operand] = []
    for name, inner in (("input", -1), ("other", -2)):
        shape = _shape(call, call.get(name)) or ()
        labels: list[Label] = [*arriving(shape, call.out or ())]
        if len(shape) > 1:
            labels[inner] = "k"
        found.append(Operand(name, call.get(name), labels))
    if all(len(operand.labels) > 1 for operand in found):
        return found
    return [operand.without(set(operand.labels)) for operand in found]


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a product of tensors: its argument (None if in a list), value and labels."""

    name: str | None
    value: Any
    labels: list[Label]

    def without(self, gone: set[Label]) -> Operand:
        """The operand that must be there in full along the axes of these labels."""
        return Operand(self.name, self.value, [None if x in gone else x for x in self.labels])


def _meeting(call: Call, operands: Sequence[Operand]) -> tuple[list[list[Label]], Follows]:
    """Labels by slot, and what the constant operands follow.

    An axis on which a constant cannot be cut along loses its label everywhere.
    """
    slots: dict[int, Operand] = {o.value.index: o for o in operands if isinstance(o.value, Slot)}
    constants = [o for o in operands if isinstance(o.value, Constant)]
    first, out = slots[0].labels if 0 in slots else [], call.out or ()
    stuck: set[Label] = set()
    for operand in constants:
        for label, size in zip(operand.labels, operand.value.shape, strict=True):
            cut = out[label] == size if isinstance(label, int) else label in first
            stuck |= set() if cut and operand.name is not None else {label}
    labels: list[list[Label]] = [[None] * len(shape or ()) for shape in call.shapes]
    for index, operand in slots.items():
        labels[index] = operand.without(stuck).labels
    follows: dict[str, tuple[Follow, ...]] = {}
    for operand in constants:
        if operand.name is not None:
            kept = operand.without(stuck).labels
            follows[operand.name] = tuple(_followed(label, first) for label in kept)
    return labels, follows


def _followed(label: Label, first: Sequence[Label]) -> Follow:
    if label is None:
        return None
    return ("out", label) if isinstance(label, int) else ("in", first.index(label))


def _biased(call: Call) -> list[Operand]:
    """The operands of addmm. To a bias that is data the whole product is added."""
    bias, matrices = call.get("bias"), _matrices(call)
    labels: list[Label] = [*arriving(_shape(call, bias) or (), call.out or ())]
    operands = [Operand("bias", bias, labels), *matrices]
    if isinstance(bias, Slot):
        return [operand.without(set(range(len(call.out or ())))) for operand in operands]
    return operands


def _terms(call: Call) -> list[Operand]:
    """The operands of einsum, their axes by letter; none where one is read along a diagonal."""
    left, arrow, right = str(call.get("equation")).replace(" ", "").partition("->")
    terms = left.split(",") if arrow and "." not in left else []
    operands: list[Operand] = []
    sizes: dict[Label, set[int]] = {}
    gone: set[Label] = set()
    for number, (name, value) in enumerate(_operands(call)):
        shape = _shape(call, value) or ()
        term = terms[number] if terms else ""
        labels: list[Label] = [right.index(x) if x in right else x for x in term]
        operands.append(Operand(name, value, labels or [None] * len(shape)))
        gone |= {x for x in labels if labels.count(x) > 1}
        for label, size in zip(labels, shape, strict=bool(labels)):
            sizes.setdefault(label, set()).add(size)
    gone |= {label for label, found in sizes.items() if len(found) > 1}
    return [operand.without(gone) for operand in operands]


def _operands(call: Call) -> list[tuple[str | None, Any]]:
    """The operands of einsum, with the names of their arguments where they have one each."""
    first = call.get("tensors")
    if isinstance(first, list | tuple):
        return [(None, value) for value in first]
    more = sorted((k for k in call.args if k.startswith("*")), key=lambda k: int(k[1:]))
    return [("tensors", first), *((k, call.args[k]) for k in more)]


def _attending(call: Call) -> list[Operand]:
    """The operands of attention. Causal attention counts its queries, so that all are there."""
    out, found = call.out or (), []
    heads = len(out) - 3
    for name in ("query", "key", "value", "attn_mask"):
        shape = _shape(call, call.get(name)) or ()
        axes: list[Label] = [*arriving(shape, out)]
        repeats = name in ("key", "value") and len(shape) == len(out) > 2
        if repeats and 1 < shape[heads] < out[heads]:
            axes[heads] = heads  # each of them serves several heads
        if len(axes) > 1:
            by_query = name in ("query", "attn_mask") and not call.get("is_causal", False)
            axes[-2] = axes[-2] if by_query else None
            axes[-1] = axes[-1] if name == "value" else None
        found.append(Operand(name, call.get(name), axes))
    return found


def unpooled(call: Call) -> dict[str, Any]:
    """Values and the places where they go, channel by channel."""
    return {"labels": [[None, 1, *[None] * (call.ndim - 2)]] * len(call.shapes), "apart": True}


def _sampling(call: Call) -> list[Operand]:
    """Images, channel by channel, at the places of a grid."""
    shapes = {name: _shape(call, call.get(name)) or () for name in ("input", "grid")}
    images: list[Label] = [1 if axis == 1 else None for axis in range(len(shapes["input"]))]
    grid: list[Label] = [None] * len(shapes["grid"])
    return [Operand("input", call.get("input"), images), Operand("grid", call.get("grid"), grid)]


def deformed(call: Call) -> dict[str, Any]:
    """A convolution at places that are data. In groups of any kind it needs all its channels."""
    weight, groups, apart = _deforming(call)
    labels: list[list[Label]] = [[None] * len(shape or ()) for shape in call.shapes]
    labels[0] = [None, "channels" if apart else None, None, None]
    kernel = math.prod(weight[2:])
    return {"labels": labels, "groups": groups, "kernel": kernel, "apart": True}


def deformed_follows(call: Call) -> Follows:
    inner: Follow = ("in", 1) if _deforming(call)[2] else None
    return {"weight": (("out", 1), inner), "bias": (("out", 1),)}


def _deforming(call: Call) -> tuple[Shape, int, bool]:
    """The shape of the weight (none if it is data), its groups, and whether all are one."""
    given = call.get("weight")
    weight = tuple(given.shape) if hasattr(given, "shape") else ()
    image, offset = call.shapes[0], _shape(call, call.args.get("offset"))
    if not weight or image is None or offset is None or not isinstance(call.args["input"], Slot):
        return (), 1, False
    groups = image[1] // weight[1]
    return weight, groups, groups == 1 and offset[1] == 2 * math.prod(weight[2:])


def _writing(call: Call) -> list[Operand]:
    """A tensor and what is written over places of one of its axes; the others are alike."""
    out = call.out or ()
    dim = int(call.get("dim", 0)) % max(len(out), 1)
    found = []
    for name in ("input", "src"):
        shape = _shape(call, call.get(name)) or ()
        skipped = [axis for axis in range(len(out)) if len(shape) == len(out) or axis != dim]
        alike: list[Label] = [axis if axis not in (0, dim) else None for axis in skipped]
        found.append(Operand(name, call.get(name), alike))
    return found


def _reading(
    operands: Callable[[Call], list[Operand]], more: Callable[[Call], dict[str, Any]]
) -> Callable[[Call], dict[str, Any]]:
    """What `Vertex.attrs` must hold of a product: the labels of its data, and more."""
    return lambda call: {**more(call), "labels": _meeting(call, operands(call))[0]}


def _following(operands: Callable[[Call], list[Operand]]) -> Callable[[Call], Follows]:
    """What the constant operands of a product follow."""
    return lambda call: _meeting(call, operands(call))[1]


def _inner(call: Call) -> dict[str, Any]:
    """The size that a product of matrices sums over."""
    return {"inner": (_shape(call, call.get("input")) or (0,))[-1]}


def _contracted(call: Call) -> dict[str, Any]:
    """The equation of einsum, the shapes of its operands, and which of them are data."""
    values = [value for _, value in _operands(call)]
    return {
        "equation": str(call.get("equation")).replace(" ", ""),
        "shapes": [_shape(call, value) for value in values],
        "operands": [i for i, value in enumerate(values) if isinstance(value, Slot)],
    }


def _attended(call: Call) -> dict[str, Any]:
    """How many keys there are, and how long, where the query, key or value is a constant."""
    if not any(isinstance(call.get(name), Constant) for name in ("query", "key", "value")):
        return {}
    return {"keys": (_shape(call, call.get("key")) or (0, 0))[-2:]}


def _apart(call: Call) -> dict[str, Any]:
    """No channel meets another of its kind."""
    return {"apart": True}


matmul_read, matmul_follows = _reading(_matrices, _inner), _following(_matrices)
addmm_read, addmm_follows = _reading(_biased, _inner), _following(_biased)
einsum_read, einsum_follows = _reading(_terms, _contracted), _following(_terms)
attention_read, attention_follows = _reading(_attending, _attended), _following(_attending)
sampled, sampled_follows = _reading(_sampling, _apart), _following(_sampling)
written, written_follows = _reading(_writing, _apart), _following(_writing)
