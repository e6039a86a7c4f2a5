"""Operators whose call changes with what remains of their inputs and output.

A rule's `lower` writes the call into the smaller program, from what its `Site` says, and returns
its value; None where the call can stay as it is but for its smaller tensors.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..vertices import Vertex
from .runtime import assemble, ragged_group_norm, segments
from .states import Live, Shapes, States


@dataclass(frozen=True)
class Site:
    """One call in the program of what remains.

    Args:
        node: the call in the traced program.
        vertex: that it is in the graph.
        shapes: of its inputs, by slot, in full.
        out: what remains of its output.
        slots: the inputs that it still reads; the next four follow these.
        haves: what remains of what its sources give.
        wants: the channels that it reads.
        values: what the sources give, in the new program.
        read: the same with the channels that it reads, of input `slots[0]` or another.
        copy: the call itself, written down with smaller tensors.
        call: writes down the call of a function.
        expanded: a value in the full shape and dtype of the output, but for absent channels.
        sizes: the shape of what remains of the output, from the sizes that the call has; -1 may
            stand for one of them.
    """

    node: fx.Node
    vertex: Vertex
    shapes: Shapes
    out: Live
    slots: Sequence[int]
    haves: States
    wants: States
    values: Sequence[Any]
    read: Callable[..., Any]
    copy: Callable[[], fx.Node]
    call: Callable[..., fx.Node]
    expanded: Callable[..., Any]
    sizes: Callable[..., list[Any]]

    @property
    def cut_call(self) -> bool:
        """Whether it is a function, which is given its sizes, and some of its output is gone."""
        return self.node.op != "call_module" and not self.out.full


Lower = Callable[[Site], Any]


def _replaced(call: fx.Node, name: str, place: int, value: Any) -> fx.Node:
    if name not in call.kwargs and place < len(call.args):
        call.update_arg(place, value)
    else:
        call.update_kwarg(name, value)
    return call


_NO_SIZES = ("flatten", "Flatten", "ravel", "unsqueeze")
_SIZES = ("reshape", "view", "expand", "broadcast_to")


def _given(site: Site) -> Any:
    """The sizes of the output as its call has them: one for each axis, or a node that gives all."""
    name = getattr(site.node.target, "__name__", site.node.target)
    named = [v for k, v in site.node.kwargs.items() if k in ("shape", "size")]
    rest: Any = (*site.node.args[1:], *named) if name in _SIZES else ()
    if len(rest) == 1 and not isinstance(rest[0], int):
        rest = rest[0]
    count = len(site.vertex.shape or ())
    whole = isinstance(rest, fx.Node) and count > 1
    return rest if whole or (not isinstance(rest, fx.Node) and len(rest) == count) else ()


def reshape(site: Site) -> Any:
    """Sizes that are written out. Where all is there what it reads is, too: they still hold."""
    kind = site.vertex.target.rpartition(".")[2]
    if site.out.full or site.vertex.shape is None or kind in _NO_SIZES:
        return None
    return site.call(torch.reshape, site.read(), tuple(site.sizes(_given(site))))


def expand(site: Site) -> Any:
    """Likewise, of a tensor that is repeated."""
    if site.out.full or site.vertex.shape is None:
        return None
    return site.expanded(site.read(), _given(site))


def split(site: Site) -> Any:
    """Pieces of other sizes: each is picked from the whole."""
    return None if site.out.keep(site.vertex.attrs["dim"]) is None else site.read()


def piece(site: Site) -> Any:
    """See `split`."""
    have, dim = site.haves[0], site.vertex.attrs["dim"]
    keep = have.keep(dim) if have is not None else None
    if keep is None:
        return None
    inside = range(site.vertex.attrs["start"], site.vertex.attrs["stop"])
    want = [here and i in inside for i, here in enumerate(keep)]
    return site.call(assemble, site.values[0], dim, segments(keep, want))


def add(site: Site) -> Any:
    """A sum of which one summand with a factor remains."""
    if len(site.slots) != 1 or len(site.shapes) != 2:
        return None
    sign = site.vertex.attrs["signs"][site.slots[0]]
    return site.expanded(site.call(operator.mul, site.read(), sign))


def conv(site: Site) -> Any:
    """A functional convolution in groups, some of which are gone."""
    groups, shape, want = site.vertex.attrs["groups"], site.shapes[0], site.wants[0]
    if site.node.op == "call_module" or groups == 1 or shape is None or want is None or want.full:
        return None
    return _replaced(site.copy(), "groups", 6, groups * want.shape(shape)[1] // shape[1])


def norm(site: Site) -> Any:
    """A functional norm over a shape that is smaller."""
    if not site.cut_call or site.vertex.shape is None:
        return None
    dims = site.vertex.attrs["dims"]
    before = len(site.vertex.shape) - dims
    sizes = tuple(site.sizes((), [-1] * before + [None] * dims)[before:])
    return _replaced(site.copy(), "normalized_shape", 1, sizes)


def norm_sizes(vertex: Vertex, out: Live) -> tuple[int, ...]:
    """The shape that a layer norm normalises over, if it lost some of it."""
    dims, shape = vertex.attrs["dims"], vertex.shape or ()
    sizes = out.shape(shape)[-dims:]
    return () if sizes == shape[-dims:] else sizes


def group_norm(site: Site) -> Any:
    """A functional norm over groups of other, and unequal, sizes."""
    if not site.cut_call:
        return None
    copied = site.copy()
    given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), copied.args, strict=False))
    given |= copied.kwargs
    tail = (given.get("weight"), given.get("bias"), given.get("eps", 1e-5))
    sizes = group_norm_sizes(site.vertex, site.out)
    result = site.call(ragged_group_norm, given["input"], sizes, *tail)
    copied.graph.erase_node(copied)
    return result


def group_norm_sizes(vertex: Vertex, out: Live) -> tuple[int, ...]:
    """Sizes of the groups of a group norm that lost channels (empty: it lost none)."""
    keep = out.keep(1) or ()
    size = max(len(keep) // vertex.attrs["groups"], 1)
    sizes = [sum(keep[i : i + size]) for i in range(0, len(keep), size)]
    return tuple(s for s in sizes if s)
