"""ATen operators restated as the torch functions and tensor methods that people write."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from ..graph.operators.table import TABLE

_END = 2**63 - 1


@dataclass(frozen=True)
class Restated:
    """A call of a function, or of the tensor method of a name.

    `first_of` is the number of outputs of the flat operator of which this call gives the first.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    first_of: int = 1


Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Way = Callable[[fx.Node, Args, Kwargs], Any]


def restate(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    """What a flat node becomes: a `Restated` call, or the value (a node) it stands for."""
    target = node.target
    name = target._schema.name if isinstance(target, torch._ops.OpOverload) else ""
    special = _SPECIAL.get(name.removeprefix("aten::"))
    if special is not None:
        return special(node, args, kwargs)
    if not name.startswith("aten::"):
        return Restated(target, args, kwargs)
    name = name.removeprefix("aten::")
    function = _torch_function(name)
    if function is None and not callable(getattr(torch.Tensor, name, print)):
        return Restated(getattr, (args[0], name))
    if function is None and TABLE.find(f"Tensor.{name.rstrip('_')}") is not None:
        function = name
    return Restated(function or target, args, kwargs)


def _torch_function(name: str) -> Any:
    """The public function of that name, if it has a rule."""
    for module in (torch, F, torch._C._nn):
        function = getattr(module, name, None)
        if function is not None and TABLE.find(function) is not None:
            return function
    return None


def _value(node: Any) -> Any:
    return node.meta.get("val") if isinstance(node, fx.Node) else None


def _given(args: Args, position: int, default: Any = None) -> Any:
    return args[position] if len(args) > position else default


def _same(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    return args[0]


def _to(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    """A change of dtype; the device and the layout stay those of the input."""
    result = _value(node)
    dtype = result.dtype if result is not None else kwargs.get("dtype")
    return Restated("to", (args[0], dtype))


def _slice(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    ndim = _value(node.args[0]).ndim
    dim = int(_given(args, 1, 0)) % ndim
    start, stop, step = (_given(args, i) for i in (2, 3, 4))
    start = None if isinstance(start, int) and start == 0 else start
    stop = None if isinstance(stop, int) and stop == _END else stop
    step = None if step == 1 else step
    if start is None and stop is None and step is None:
        return args[0]
    index = (*[slice(None)] * dim, slice(start, stop, step))
    return Restated(operator.getitem, (args[0], index))


def _select(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    dim = int(args[1]) % _value(node.args[0]).ndim
    return Restated(operator.getitem, (args[0], (*[slice(None)] * dim, args[2])))


def _index(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    index = tuple(slice(None) if i is None else i for i in args[1])
    return Restated(operator.getitem, (args[0], index))


def _embedding_bag(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    defaults: Args = (False, 0, False, None, False, None)
    weight, indices, offsets, by_frequency, mode, *rest = args + defaults[len(args) - 3 :]
    given = (indices, weight, offsets, None, 2.0, by_frequency, ("sum", "mean", "max")[mode])
    return Restated(F.embedding_bag, (*given, *rest), first_of=4)


_NORM = (0, 3, 4, 1, 2, 5, 6, 7)  # where a functional norm's arguments are in ATen's


def _frozen_batch_norm(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    """That of eval mode, which also gives the statistics it took."""
    x, weight, bias, mean, var, momentum, eps = args
    given = (x, mean, var, weight, bias, False, momentum, eps)
    return Restated(F.batch_norm, given, first_of=3)


def _constant_pad(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    return Restated(F.pad, (args[0], args[1], "constant", _given(args, 2, 0)))


def _rsub(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    if kwargs.get("alpha", _given(args, 2, 1)) != 1:
        return Restated(node.target, args, kwargs)
    return Restated(operator.sub, (args[1], args[0]))


def _max_pool(name: str) -> Way:
    """Pooling that also gives the places of the largest values, which few read."""

    def made(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
        if any(user.args[1] == 1 for user in node.users):
            return Restated(getattr(F, f"{name}_with_indices"), args, kwargs)
        return Restated(getattr(F, name), args, kwargs, first_of=2)

    return made


def _grid_sampler(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    x, grid, mode, padding, corners = args
    names = ("bilinear", "nearest", "bicubic")[mode], ("zeros", "border", "reflection")[padding]
    return Restated(F.grid_sample, (x, grid, *names, corners))


def _deform_conv(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    from torchvision.ops import deform_conv2d  # where there is such a node, there is torchvision

    x, weight, offset, mask, bias, *sizes, _, _, used = args
    pairs = (tuple(sizes[i : i + 2]) for i in (0, 2, 4))
    given = (x, offset, weight, bias, *pairs, mask if used else None)
    return Restated(deform_conv2d, given)


def _stft(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    """Of a signal that is padded already, unless it is told how."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {"center": False, **dict(zip(names[1:], args[1:], strict=False)), **kwargs}
    return Restated(torch.stft, args[:1], given)


def _copy(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
    """What is written over a whole tensor takes its place."""
    old, new = (_value(given) for given in node.args[:2])
    if old.dtype != new.dtype:
        return Restated(node.target, args, kwargs)
    return args[1] if old.shape == new.shape else Restated("expand_as", args[1::-1])


def _call(target: Any, *places: int) -> Way:
    """A call with all arguments, or with those at some places, in that order."""

    def made(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
        if not places:
            return Restated(target, args, kwargs)
        given = tuple(args[place] for place in places if place < len(args))
        return Restated(target, given)

    return made


_FACTORIES = (
    "arange", "zeros", "ones", "full", "empty", "eye", "linspace", "scalar_tensor", "tril_indices",
    "triu_indices", "hann_window", "hamming_window", "blackman_window", "bartlett_window",
    "kaiser_window",
)  # fmt: skip
_TRANSFORMS = [name for name in torch.fft.__all__ if name != "Tensor"]


def _factory(name: str) -> Way:
    def made(node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
        wanted = {k: v for k, v in kwargs.items() if k not in ("layout", "pin_memory")}
        return Restated(getattr(torch, name), args, wanted)

    return made


_SPECIAL: dict[str, Way] = {
    **{f"adaptive_max_pool{d}d": _max_pool(f"adaptive_max_pool{d}d") for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": _max_pool(f"max_pool{d}d") for d in (1, 2, 3)},
    **{name: _factory(name) for name in _FACTORIES},
    **{f"fft_{name}": _call(getattr(torch.fft, name)) for name in _TRANSFORMS},
    **{f"max_unpool{d}d": _call(getattr(torch._C._nn, f"max_unpool{d}d")) for d in (2, 3)},
    "grid_sampler": _grid_sampler,
    "affine_grid_generator": _call(F.affine_grid),
    "torchvision::deform_conv2d": _deform_conv,
    "stft": _stft,
    "copy": _copy,
    "_conj": _call(torch.conj),
    "im2col": _call(F.unfold),
    "col2im": _call(F.fold),
    "to": _to,
    "_to_copy": _to,
    "slice": _slice,
    "select": _select,
    "index": _index,
    "sym_size": _call("size"),
    "embedding": _call(F.embedding, 1, 0),
    "embedding_bag": _embedding_bag,
    "batch_norm": _call(F.batch_norm, *_NORM),
    "_native_batch_norm_legit_no_training": _frozen_batch_norm,
    "instance_norm": _call(F.instance_norm, *_NORM),
    "group_norm": _call(F.group_norm, *range(5)),
    "layer_norm": _call(F.layer_norm, *range(5)),
    "dropout": _call(F.dropout),
    "split_with_sizes": _call(torch.split),
    "constant_pad_nd": _constant_pad,
    "_unsafe_view": _call("reshape"),
    "alias": _same,
    "detach": _same,
    "detach_": _same,
    "lift_fresh_copy": _same,
    "contiguous": _call("contiguous"),
    "unfold": _call("unfold"),
    "rsub": _rsub,
    "zero": _call(torch.zeros_like),
    "__and__": _call(operator.and_),
    "__or__": _call(operator.or_),
}
