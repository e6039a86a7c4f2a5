"""Taking parts out of a model: what they receive, and a module of them alone to trace."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TraceError
from ..graph.graph import Cost
from ..values.nested import batch_size, copies_of, leaves_of, tensors_of
from ..values.spelling import nearest
from .agreement import reference
from .agreement import same as same_tensor
from .probe import counted
from .whole import Part, Whole, around, copied, holder

_PLAIN = (
    torch.Tensor,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
)


@dataclass
class _Seen:
    """The calls of one part: what it got, what it gave, and what was wrong with them.

    `below` has the kinds of arguments that no graph has, by the path of the module that got them,
    and `direct` the modules in it that ran without it.
    """

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    versions: list[tuple[torch.Tensor, int | None]] = field(default_factory=list)
    autocast: list[tuple[tuple[str, torch.dtype], ...]] = field(default_factory=list)
    wrote: bool = False
    running: bool = False
    below: dict[str, list[str]] = field(default_factory=dict)
    direct: list[str] = field(default_factory=list)


def taken(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], paths: Sequence[str]
) -> tuple[Whole, nn.Module, dict[str, Any], Cost]:
    """Parts of a model, as the model calls them on an example.

    Returns:
        The model around them, a module of the parts alone, what to call it with by name, and what
        the rest of the model costs for one example.

    Raises:
        TraceError: there is no such part, they overlap, or the model does not call each of them
            as a module, always alike, with tensors and plain values.
    """
    _require_paths(model, paths)
    whole = replace(around(model, [Part(path) for path in paths]), example=(args, kwargs))
    seen = _watched(whole, model)
    parts, given = [], dict[str, Any]()
    for path in paths:
        found = seen[path]
        _require_alike(model, path, found)
        (own_args, own_kwargs), prefix = found.calls[0], ""
        if len(paths) > 1:
            prefix = path.replace(".", "_") + "_"
        own = (*_names(model.get_submodule(path), len(own_args)), *own_kwargs)
        names = tuple(prefix + name for name in own)
        given |= zip(names, (*own_args, *own_kwargs.values()), strict=True)
        parts.append(Part(path, names, own, len(own_args)))
    _require_one_batch(paths, seen)
    first = seen[paths[0]]
    given_out = [pair for found in seen.values() for pair in found.versions]
    written = any(was is None or value._version != was for value, was in given_out)
    whole = replace(
        whole,
        parts=tuple(parts),
        given=given,
        autocast=first.autocast[0],
        written=written,
        tied=_tied(model, paths),
    )
    return whole, holder(model, parts), given, _cost(whole, model, seen)


def _require_paths(model: nn.Module, paths: Sequence[str]) -> None:
    known = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if not paths or not all(isinstance(path, str) for path in paths):
        got = ", ".join(repr(p) if isinstance(p, str) else type(p).__name__ for p in paths)
        raise TraceError(f"part takes a path, or a list of several; got {got or 'none'}.")
    for number, path in enumerate(paths):
        if path not in known:
            raise TraceError(
                f"{type(model).__name__} has no part {path!r}.{nearest(path, known)}"
                if path
                else "part='' is the whole model: leave `part` out to trace that."
            )
        for other in paths[:number]:
            if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}."):
                outer, inner = sorted((path, other), key=len)
                raise TraceError(
                    f"Parts overlap: {inner!r} lies within {outer!r}. Name the outer one alone."
                    if outer != inner
                    else f"Part {path!r} is named twice."
                )
            if known[path] is known[other]:
                raise TraceError(
                    f"Parts {other!r} and {path!r} are one module. Name it once; it is pruned "
                    "wherever the model calls it."
                )


def _watched(whole: Whole, model: nn.Module) -> dict[str, _Seen]:
    """What each part gets and gives when the model runs on its example."""
    seen = {path: _Seen() for path in whole.paths}
    copies = [copied(model.get_submodule(path)).eval() for path in whole.paths]

    def call(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found, before = seen[whole.paths[number]], copies_of((args, kwargs))
        found.running = True
        value = copies[number](*args, **kwargs)
        found.running = False
        found.calls.append(before)
        found.wrote |= not _alike(before, (args, kwargs))
        found.outputs.append(copies_of(value))
        leaves = tensors_of(value)
        found.versions += [(x, None if x.is_inference() else x._version) for x in leaves]
        kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        found.autocast.append(
            tuple((k, torch.get_autocast_dtype(k)) for k in kinds if torch.is_autocast_enabled(k))
        )
        return value

    own = whole.calling(call)
    for path, module in zip(whole.paths, copies, strict=True):
        for name, inner in module.named_modules(prefix=path):
            inner.register_forward_pre_hook(_noting(seen[path], name), with_kwargs=True)
        content = {k: vars(module)[k] for k in ("_modules", "_parameters", "_buffers")}
        vars(own.get_submodule(path)).update(content)  # the model may use them without the part
    assert whole.example is not None
    reference(own, *whole.example)
    return seen


def _noting(found: _Seen, path: str) -> Any:
    """A hook that notes which modules run, and the kinds of their arguments that no graph has."""

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        odd = [type(v).__name__ for v in leaves_of((args, kwargs)) if not isinstance(v, _PLAIN)]
        found.below.setdefault(path, []).extend(odd)
        found.direct += [] if found.running else [path]

    return note


def _require_alike(model: nn.Module, path: str, found: _Seen) -> None:
    """Require that all calls of a part are one graph, and all that the model does with it."""
    name, ran = type(model).__name__, dict.fromkeys(found.direct)
    outer = [p for p in ran if not any(p.startswith(f"{other}.") for other in ran)]
    direct = ", ".join(outer[:3])
    if not found.calls:
        raise TraceError(
            f"Part {path!r} never runs as a module when {name} runs in eval mode on the example. "
            + (f"The model calls {direct} itself: name that." if direct
               else "Name a part that does, or give an example that needs it.")
        )  # fmt: skip
    if direct:
        raise TraceError(
            f"{name} calls {direct} itself, besides part {path!r}, which holds it. Name a part "
            "that both calls are within, or parts below this one."
        )
    if odd := found.below[path]:
        fitting = [inner for inner, kinds in found.below.items() if not kinds]
        raise TraceError(
            f"Part {path!r} gets {', '.join(dict.fromkeys(odd))}, which is neither a tensor nor "
            "plain data. "
            + (f"Name a part below it, such as {fitting[0]!r}." if fitting
               else "Wrap what it computes in a module that takes tensors.")
        )  # fmt: skip
    if found.wrote:
        raise TraceError(
            f"Part {path!r} writes in place into what {type(model).__name__} gives it. Let it work "
            "on a copy, or name a part that holds both."
        )
    shapes = [_shapes(call) for call in found.calls]
    if len(dict.fromkeys(shapes)) > 1:
        times = [f"{shape} ({shapes.count(shape)} times)" for shape in dict.fromkeys(shapes)]
        raise TraceError(
            f"Part {path!r} is called {len(shapes)} times on the example, and not always alike: "
            f"{'; '.join(times)}. One graph is of one kind of call. Name a part that holds the "
            "loop, or a part below this one that is called once."
        )
    if len(set(found.autocast)) > 1:
        raise TraceError(f"Part {path!r} is called both with and without autocast.")


def _require_one_batch(paths: Sequence[str], seen: Mapping[str, _Seen]) -> None:
    sizes = {path: batch_size(seen[path].calls[0]) for path in paths}
    if len({*sizes.values()}) > 1 and sizes[paths[0]] > 1:
        told = ", ".join(f"{path}: {size}" for path, size in sizes.items())
        raise TraceError(
            f"Parts get batches of different sizes ({told}). Trace them with a batch of one."
        )
    if len({seen[path].autocast[0] for path in paths}) > 1:
        raise TraceError("Some of the parts run under autocast, and others do not.")


def _names(module: nn.Module, count: int) -> list[str]:
    """The names of the arguments that are given by place."""
    names: list[str] = []
    for name, parameter in inspect.signature(module.forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{name}_{i}" for i in range(count - len(names))]
        elif parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
    return names[:count]


def _shapes(call: Any) -> str:
    """The arguments of a call in words: tensors by their shapes, anything else as it is."""
    return repr(pytree.tree_map_only(torch.Tensor, lambda t: tuple(t.shape), call))


def _alike(before: Any, after: Any) -> bool:
    pairs = zip(leaves_of(before), leaves_of(after), strict=True)
    return all(same_tensor(a, b) for a, b in pairs if isinstance(a, torch.Tensor))


def _tied(model: nn.Module, paths: Sequence[str]) -> frozenset[str]:
    """Parameters of parts that have a name outside of them, too."""
    ends = tuple(f"{path}." for path in paths)
    named = list(model.named_parameters(remove_duplicate=False))
    outside = {id(p) for name, p in named if not name.startswith(ends)}
    return frozenset(name for name, p in named if name.startswith(ends) and id(p) in outside)


def _cost(whole: Whole, model: nn.Module, seen: Mapping[str, _Seen]) -> Cost:
    """What the model around the parts costs for one example and one call of the first part."""
    outputs = {path: iter(found.outputs) for path, found in seen.items()}
    alone = whole.calling(lambda number, *_: next(outputs[whole.paths[number]]))
    assert whole.example is not None
    with counted() as macs, _Bytes() as held:
        try:
            reference(alone, *whole.example)
        except TraceError as error:
            raise TraceError(
                f"{whole.name} does more with {', '.join(whole.paths)} than to call it: "
                f"{error.__cause__}. Name a part below that, or one that holds both."
            ) from error
    first = seen[whole.paths[0]].calls
    share = max(batch_size(first[0]), 1) * len(first)
    inside = [p for path in whole.paths for p in model.get_submodule(path).named_parameters(path)]
    own = {id(p) for name, p in inside if name not in whole.tied}
    weights = [p for p in model.parameters() if id(p) not in own]
    return Cost(
        units=0,
        params=sum(p.numel() for p in weights),
        macs=int(macs.get_total_flops()) // 2 // share,
        activation_bytes=held.total // share,
        weight_bytes=sum(p.nbytes for p in weights),
    )


class _Bytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operators give, views aside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tensors_of((args, kwargs or {}))}
        own = {t.untyped_storage()._cdata: t.nbytes for t in tensors_of(value)}
        self.total += sum(size for place, size in own.items() if place not in given)
        return value
