"""One traced call as plain data, and what rules read of it.

A reader takes a `Call` and gives what `Vertex.attrs` must hold (names say what they read), or what
the dimensions of the call's parameters follow.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..vertices import Follow, Shape

Follows = Mapping[str, tuple[Follow, ...]]


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor argument that does not depend on the model's inputs."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor argument that does: data input number `index`."""

    index: int


@dataclass(frozen=True)
class Call:
    """One traced call, as a rule sees it.

    Args:
        args: arguments by name (tensors as Slot or Constant); empty for modules.
        module: the module called, if it is one.
        shapes: the shapes of the data inputs, by slot.
        out: the shape of the output, None if it is not a tensor.
        dtypes: the dtypes of the data inputs, by slot, and that of the output at the end.
    """

    args: Mapping[str, Any]
    module: nn.Module | None
    shapes: tuple[Shape | None, ...]
    out: Shape | None
    dtypes: tuple[str, ...] = ()

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the module's attribute of that name."""
        if self.module is not None:
            return getattr(self.module, name, default)
        return self.args.get(name, default)

    @property
    def ndim(self) -> int:
        """Dimensions of the first data input."""
        return len(self.shapes[0]) if self.shapes and self.shapes[0] is not None else 0


def nothing(call: Call) -> dict[str, Any]:
    return {}


def broadcast(call: Call) -> Follows:
    """Constant operands follow the output's axes from the right, as in broadcasting."""
    out = call.out or ()
    found: dict[str, tuple[Follow, ...]] = {}
    for name, value in call.args.items():
        if isinstance(value, Constant):
            shift = len(out) - len(value.shape)
            found[name] = tuple(
                ("out", i + shift) if size > 1 and shift >= 0 else None
                for i, size in enumerate(value.shape)
            )
    return found


def no_follows(call: Call) -> Follows:
    return {}


def same_axes(call: Call) -> dict[str, Any]:
    """Axes that keep their size keep their channels: element-wise operators, expand and repeat."""
    return {"axes": arriving((call.shapes[0] if call.shapes else None) or (), call.out or ())}


def axes_where(kept: Callable[[int, int], bool]) -> Callable[[Call], dict[str, Any]]:
    """Axes keep their channels that a condition names, of an axis and the number of them."""

    def read(call: Call) -> dict[str, Any]:
        return {"axes": [i if kept(i, call.ndim) else None for i in range(call.ndim)]}

    return read


apart_by_channels = axes_where(lambda axis, _: axis < 2)  # and by examples
but_channels = axes_where(lambda axis, _: axis != 1)
channels_alone = axes_where(lambda axis, _: axis == 1)  # each with statistics of its own


def leading_axes(count: int) -> Callable[[Call], dict[str, Any]]:
    """Axes keep their channels but the last `count`, over which the operator works."""
    return axes_where(lambda axis, ndim: axis < ndim - count)


def but_axis(name: str, default: int | tuple[int, ...] | None) -> Callable[[Call], dict[str, Any]]:
    """Every axis keeps its channels but the ones that argument `name` gives (None: none does)."""

    def read(call: Call) -> dict[str, Any]:
        dims = call.get(name, default)
        dims = [dims] if isinstance(dims, int) else list(dims or ())
        more = (v for k, v in sorted(call.args.items()) if k.startswith("*"))
        dims += [v for v in more if isinstance(v, int)]  # and no dtype
        gone = {int(d) % call.ndim for d in dims or range(call.ndim)}
        return {"axes": [None if i in gone else i for i in range(call.ndim)]}

    return read


def reduced(call: Call) -> dict[str, Any]:
    """A reduction over `dim` (all axes if None), with or without keepdim, as the shape shows."""
    dim = call.get("dim")
    dims = range(call.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {int(d) % call.ndim for d in dims}
    kept = call.out is not None and len(call.out) == call.ndim
    axes: list[int | None] = []
    for axis in range(call.ndim):
        before = sum(d < axis for d in gone)
        axes.append(None if axis in gone else axis if kept else axis - before)
    return {"axes": axes}


def extreme(call: Call) -> dict[str, Any]:
    """As `reduced`; the extremum of two tensors has no axis to itself."""
    several = not isinstance(call.get("dim"), int | None)
    return {"axes": [None] * call.ndim} if several else reduced(call)


def regrouped(place: int) -> Callable[[Call], dict[str, Any]]:
    """Each channel of axis -`place`, on the one side, is a run of channels on the other.

    They go as in a convolution in groups; a single one is not taken apart.
    """

    def read(call: Call) -> dict[str, Any]:
        axis, before, after = call.ndim - place, call.shapes[0] or (), call.out or ()
        groups = min(before[axis], after[axis])
        axes = [i if i < axis else None for i in range(call.ndim)]
        return {"mixes": axis if groups > 1 else None, "axes": axes, "groups": groups}

    return read


def permuted(call: Call) -> dict[str, Any]:
    """permute(dims) in any spelling."""
    dims = call.get("dims")
    order = [dims] if isinstance(dims, int) else list(dims)
    order += [v for k, v in sorted(call.args.items()) if k.startswith("*")]
    order = [int(d) % call.ndim for d in order]
    return {"axes": [order.index(axis) for axis in range(call.ndim)], "permute": True}


def transposed(call: Call) -> dict[str, Any]:
    """transpose(dim0, dim1); .mT as the last two axes."""
    a, b = (int(call.get(n, d)) % call.ndim for n, d in (("dim0", -2), ("dim1", -1)))
    axes = list(range(call.ndim))
    axes[a], axes[b] = b, a
    return {"axes": axes}


def moved(call: Call) -> dict[str, Any]:
    """movedim(source, destination)."""
    listed = [call.get("source"), call.get("destination")]
    sources, places = ([d] if isinstance(d, int) else list(d) for d in listed)
    axes = {s % call.ndim: d % call.ndim for s, d in zip(sources, places, strict=True)}
    free = [d for d in range(call.ndim) if d not in axes.values()]
    rest = [a for a in range(call.ndim) if a not in axes]
    axes |= dict(zip(rest, free, strict=True))
    return {"axes": [axes[a] for a in range(call.ndim)]}


def reversed_axes(call: Call) -> dict[str, Any]:
    """x.T: all axes in reverse."""
    return {"axes": list(reversed(range(call.ndim)))}


def indexed(call: Call) -> dict[str, Any]:
    """x[index] with slices, integers, None and Ellipsis; anything else mixes its axes."""
    index = call.get("index")
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [i if i is Ellipsis else None for i in items]:
        at = next(k for k, i in enumerate(items) if i is Ellipsis)
        spare = call.ndim - sum(i is not None for i in items) + 1
        items[at : at + 1] = [slice(None)] * spare
    axes: list[int | None] = [None] * call.ndim
    axis = out = 0
    for item in items + [slice(None)] * call.ndim:
        if axis >= call.ndim:
            break
        if item is None:
            out += 1
        elif isinstance(item, slice):
            axes[axis] = out if _whole(item, (call.shapes[0] or ())[axis]) else None
            axis, out = axis + 1, out + 1
        elif isinstance(item, int):
            axis += 1
        else:
            return {"axes": [None] * call.ndim}
    return {"axes": axes}


def _whole(item: slice, size: int) -> bool:
    """Whether a slice takes all, however few are left; of a batch, only one that says so."""
    if item == slice(None) or size == 1:
        return item == slice(None)
    starts, ends = item.start in (None, 0, -size), item.stop is None
    return starts and item.step in (None, 1) and (ends or bool(item.stop >= size))


def padded(call: Call) -> dict[str, Any]:
    """F.pad: axes that get no padding keep their channels."""
    pad = list(call.get("pad", ()))
    touched = {
        call.ndim - 1 - i // 2
        for i, amount in enumerate(pad)
        if not isinstance(amount, int) or amount
    }
    return {"axes": [None if i in touched else i for i in range(call.ndim)]}


def summed(call: Call) -> dict[str, Any]:
    """The factors of the summands of add and sub, by slot."""
    alpha = call.get("alpha", 1)
    signs = []
    for name in ("input", "other"):
        if isinstance(call.get(name), Slot):
            signs.append(1 if name == "input" else alpha)
    return {"signs": signs or [1] * len(call.shapes)}


def subtracted(call: Call) -> dict[str, Any]:
    """As `summed`, the second summand negative."""
    signs = summed(call)["signs"]
    second = isinstance(call.get("other"), Slot)
    return {"signs": [*signs[:-1], -signs[-1]] if second else signs}


def factors(call: Call) -> dict[str, Any]:
    """Which factors may stand alone: those of the product's dtype, so no boolean mask."""
    return {"alone": [dtype == call.dtypes[-1] for dtype in call.dtypes[:-1]]}


def quotient(call: Call) -> dict[str, Any]:
    names = [n for n in ("input", "other") if isinstance(call.get(n), Slot)]
    return {"alone": [name == "input" for name in names]}


def concatenated(call: Call) -> dict[str, Any]:
    assert call.out is not None
    dim = int(call.get("dim", 0)) % len(call.out)
    pieces: list[tuple[int | None, int]] = []
    for item in call.get("tensors"):
        if isinstance(item, Slot):
            shape = call.shapes[item.index]
            pieces.append((item.index, shape[dim] if shape is not None else 1))
        else:
            pieces.append((None, item.shape[dim]))
    return {"dim": dim, "pieces": pieces}


def stacked(call: Call) -> dict[str, Any]:
    assert call.out is not None
    pieces = [(t.index if isinstance(t, Slot) else None, 1) for t in call.get("tensors")]
    return {"dim": int(call.get("dim", 0)) % len(call.out), "pieces": pieces, "stack": True}


def cut(call: Call) -> dict[str, Any]:
    """chunk, split and unbind; the front end adds start and stop to the pieces."""
    return {"dim": int(call.get("dim", 0)) % max(call.ndim, 1)}


def channel_follows(call: Call) -> Follows:
    names = ("weight", "bias", "running_mean", "running_var")
    return dict.fromkeys(names, (("out", 1),))


def conv_read(call: Call) -> dict[str, Any]:
    axes, groups = [0, *[None] * (call.ndim - 1)], int(call.get("groups", 1))
    return {"mixes": 1, "axes": axes, "groups": groups, "kernel": _kernel(call)}


def _kernel(call: Call) -> int:
    if call.module is not None:
        return math.prod(call.get("kernel_size"))
    weight = call.args.get("weight")
    return math.prod(weight.shape[2:]) if isinstance(weight, Constant) else 0


def conv_follows(call: Call) -> Follows:
    grouped = int(call.get("groups", 1)) > 1
    return {"weight": (("out", 1), None if grouped else ("in", 1)), "bias": (("out", 1),)}


def conv_transpose_follows(call: Call) -> Follows:
    grouped = int(call.get("groups", 1)) > 1
    return {"weight": (("in", 1), None if grouped else ("out", 1)), "bias": (("out", 1),)}


def linear_read(call: Call) -> dict[str, Any]:
    last = call.ndim - 1
    return {"mixes": last, "axes": [i if i < last else None for i in range(call.ndim)]}


def linear_follows(call: Call) -> Follows:
    out = len(call.out or ()) - 1
    return {"weight": (("out", out), ("in", call.ndim - 1)), "bias": (("out", out),)}


def halved(call: Call) -> dict[str, Any]:
    """The axis whose halves a gated unit multiplies."""
    return {"dim": int(call.get("dim", -1)) % max(call.ndim, 1)}


def arriving(shape: Shape, out: Shape) -> list[int | None]:
    """For each axis, the output axis on which it arrives, broadcast from the right."""
    shift = len(out) - len(shape)
    ahead = [axis + shift if axis + shift >= 0 else None for axis in range(len(shape))]
    return [a if a is not None and out[a] == s else None for a, s in zip(ahead, shape, strict=True)]


def embedding_follows(call: Call) -> Follows:
    return {"weight": (None, ("out", len(call.out or ()) - 1))}


def multihead_read(call: Call) -> dict[str, Any]:
    module = call.module
    first = bool(getattr(module, "batch_first", False))
    return {"embed": int(getattr(module, "embed_dim", 0)), "batch_first": first}


def norm_follows(call: Call) -> Follows:
    shape = call.get("normalized_shape")
    dims = len(shape) if isinstance(shape, Sequence) else 1
    follows: tuple[Follow, ...] = tuple(("out", call.ndim - dims + i) for i in range(dims))
    return {"weight": follows, "bias": follows}


def norm_read(call: Call) -> dict[str, Any]:
    shape = call.get("normalized_shape")
    return {"dims": len(shape) if isinstance(shape, Sequence) else 1}


def group_norm_read(call: Call) -> dict[str, Any]:
    return {"groups": int(call.get("num_groups"))}


def prelu_follows(call: Call) -> Follows:
    weight = call.args.get("weight")
    given = math.prod(weight.shape) if isinstance(weight, Constant) else 1
    wide = given if call.module is None else int(call.get("num_parameters"))
    return {"weight": (("out", 1),)} if wide > 1 else {}
