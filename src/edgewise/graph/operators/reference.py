"""What operators give at full size that work over what remains: statistics, sums and extrema.

The reference that rewrites are compared with calls these in place of the operators themselves,
with the module (None for a function), the vertex, what remains of the first input, and the
arguments of the call. The rewrite uses none of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..vertices import Vertex
from .states import Live

Arguments = Mapping[str, Any]
Reference = Callable[[Any, Vertex, Live, Any, Arguments], torch.Tensor]


def there(have: Live, value: torch.Tensor) -> torch.Tensor:
    """Booleans that broadcast to the value: which of its elements remain."""
    there = torch.ones([1] * value.ndim, dtype=torch.bool, device=value.device)
    for axis, keep in have.keeps:
        line = torch.tensor(keep, device=value.device)
        there = there & line.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
    return there


def _norm_over(
    value: torch.Tensor, have: Live, dims: int, centre: bool, eps: float
) -> torch.Tensor:
    """Normalise over the last `dims` dimensions, counting only the channels that remain."""
    axes = tuple(range(value.ndim - dims, value.ndim))
    inside = Live(tuple(item for item in have.keeps if item[0] in axes))
    keep = there(inside, value)
    weight = keep.to(value.dtype).expand_as(value)
    value = torch.where(keep, value, torch.zeros_like(value))
    count = weight.sum(axes, keepdim=True)
    mean = value.sum(axes, keepdim=True) / count if centre else torch.zeros_like(count)
    spread = ((value - mean).square() * weight).sum(axes, keepdim=True) / count
    return (value - mean) * torch.rsqrt(spread + eps)


def _affine(value: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    value = value if weight is None else value * weight
    return value if bias is None else value + bias


def _given(module: Any, names: str, args: Any, kwargs: Arguments) -> dict[str, Any]:
    """The arguments of a function by name; of a module its input, settings and weights."""
    given = {**dict(zip(names.split(), args, strict=False)), **kwargs}
    return given | {n: getattr(module, n) for n in names.split()[1:] if module is not None}


def layer_norm(
    module: Any, vertex: Vertex, have: Live, args: Any, kwargs: Arguments
) -> torch.Tensor:
    given = _given(module, "input normalized_shape weight bias eps", args, kwargs)
    dims, eps = int(vertex.attrs["dims"]), given.get("eps", 1e-5)
    value = _norm_over(given["input"], have, dims, True, eps)
    return _affine(value, given.get("weight"), given.get("bias"))


def rms_norm(module: Any, vertex: Vertex, have: Live, args: Any, kwargs: Arguments) -> torch.Tensor:
    given = _given(module, "input normalized_shape weight eps", args, kwargs)
    value: torch.Tensor = given["input"]
    eps = torch.finfo(value.dtype).eps if given.get("eps") is None else given["eps"]
    value = _norm_over(value, have, int(vertex.attrs["dims"]), False, eps)
    return _affine(value, given.get("weight"), None)


def group_norm(
    module: Any, vertex: Vertex, have: Live, args: Any, kwargs: Arguments
) -> torch.Tensor:
    given = _given(module, "input num_groups weight bias eps", args, kwargs)
    value: torch.Tensor = given["input"]
    groups, keep = int(vertex.attrs["groups"]), have.keep(1) or ()
    parts, size = [], value.shape[1] // groups
    for begin in range(0, groups * size, size):
        kept = keep[begin : begin + size]
        some = Live(((1, kept),)) if any(kept) else Live()
        part = value[:, begin : begin + size]
        parts.append(_norm_over(part, some, value.ndim - 1, True, given.get("eps", 1e-5)))
    shape = (-1, *[1] * (value.ndim - 2))
    affine = (p if p is None else p.reshape(shape) for p in map(given.get, ("weight", "bias")))
    return _affine(torch.cat(parts, 1), *affine)


def reduced(module: Any, vertex: Vertex, have: Live, args: Any, kwargs: Arguments) -> torch.Tensor:
    """A mean, sum or extremum over what remains: the rest is replaced by what changes nothing."""
    value: torch.Tensor = args[0] if args else kwargs["input"]
    over = [(a, k) for a, k in have.keeps if vertex.attrs["axes"][a] is None]
    fill = {"amax": -torch.inf, "logsumexp": -torch.inf, "amin": torch.inf, "prod": 1.0}
    rest = torch.full_like(value, fill.get(vertex.op, 0.0))
    value = torch.where(there(Live(tuple(over)), value), value, rest)
    named = {key: kwargs[key] for key in kwargs if key != "input"}
    result: torch.Tensor = getattr(torch, vertex.op)(value, *args[1:], **named)
    if vertex.op == "mean":
        for _, keep in over:
            result = result * (len(keep) / keep.count(True))
    return result


def recurrent(module: Any, vertex: Vertex, out: Live, args: Any, kwargs: Arguments) -> Any:
    """A recurrent layer none of whose units reads what is absent: such columns are zero."""
    weights = {}
    for (name, weight), parameter in zip(module.named_parameters(), vertex.params, strict=False):
        follow = parameter.follows[-1]
        keep = out.keep(follow[1]) if follow is not None and follow[0] == "out" else None
        if keep is not None and weight.ndim > 1:
            line = torch.tensor(keep, device=weight.device).repeat(weight.shape[1] // len(keep))
            weights[name] = weight * line.to(weight.dtype)
    return torch.func.functional_call(module, weights, args, dict(kwargs))
