"""Whether a traced program gives what the model gives: on the example and on drawn inputs."""

import copy
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..errors import ObjectiveError, TraceError, lacks_memory
from ..values.nested import batch_size, copies_of, device_of, leaves_of, named_leaves, shapes_of
from ..values.precision import full_precision
from .probe import Recording, run
from .program import evaluating
from .sizes import (
    Axis,
    Condition,
    Varied,
    axes_by_size,
    batch_axes,
    changed,
    frozen_axes,
    variations,
)

TOLERANCE = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
}
COARSE = 1e-2  # of half precision and less
MOST_ELEMENTS = 2**22  # that all values of a program may have together at the larger batch
LARGER, AT_LEAST = 4, 16  # the larger batch: this many times the example, and at least
MOST_RESIZED = 2**27  # elements of all values at another length or image size
_AS_IT_IS: Varied = {}
REFUSED = object()  # in place of outputs: what was pruned before takes its own sizes only

_REASON = (
    "The model probably draws random numbers in eval mode, keeps state between calls, or decides "
    "by the values of its inputs."
)


def reference(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the user's own model gives in eval mode, its modes and buffers put back afterwards."""
    try:
        with _own_buffers(model), evaluating(model), torch.no_grad(), full_precision():
            return model(*copies_of(args), **copies_of(dict(kwargs)))
    except Exception as error:
        raise TraceError(
            f"{type(model).__name__} fails in eval mode on the example inputs of shape "
            f"{shapes_of((args, dict(kwargs)))}: "
            f"{type(error).__name__}: {error}\nedgewise prunes what the model does in eval mode; "
            "check `model.eval()(...)` on these inputs."
        ) from error


@contextmanager
def _own_randomness(args: Any) -> Iterator[None]:
    """Whatever draws random numbers within, torch's own generators are as before afterwards."""
    home = device_of(args)
    devices = [home] if home is not None and home.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _own_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers are put back afterwards, whether they were written to or replaced."""
    homes = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    values = [(value, value.clone()) for value in model.buffers()]
    try:
        yield
    finally:
        for buffers, before in homes:
            buffers.update(before)
        with torch.no_grad():
            for value, kept in values:
                if not (value.is_inference() or same(value, kept)):
                    value.copy_(kept)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same, in one dtype and on one device."""
    alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    return alike and bool(((a == b) | (a.isnan() & b.isnan())).all())


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    Args:
        free: whether the program agreed with the model at all other batch sizes that it takes.
        doubled: its run on inputs of twice the batch; empty where the two did not agree there.
        sizes: other lengths, heights and widths at which it agreed, of the program's inputs.
        frozen: axes at other sizes of which the model runs, and the program does not agree.
        moving: by node, the axes of its tensor that were longer or shorter at `sizes`.
    """

    free: bool
    doubled: Recording
    sizes: tuple[Varied, ...] = ()
    frozen: tuple[tuple[int, int, int], ...] = ()
    moving: Mapping[str, frozenset[int]] = field(default_factory=dict)


class Judge:
    """Compares programs of one model with it, on inputs drawn once for all of them.

    Tensors of floating point are drawn with the mean and spread of the example's (standard normal
    where it has none), integers between its smallest and largest, booleans freely. Where the model
    itself raises on drawn inputs, they are left out.

    Args:
        model: the user's model.
        args: the example, as for `trace`.
        kwargs: likewise.
        expected: what the model gives for it.
        bind: from args and kwargs to the inputs of a program, in order.
    """

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], expected: Any,
        bind: Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[Any, ...]],
    ) -> None:  # fmt: skip
        self.model, self.args, self.kwargs, self.expected = model, args, kwargs, expected
        self.bind = bind
        self.batch = batch_size(bind(args, kwargs))
        self.drawn = cache(self._drawn)
        self.short_of_memory = False

    def _drawn(
        self, size: int, sizes: tuple[tuple[Axis, int], ...] = (), model: nn.Module | None = None
    ) -> tuple[tuple[Any, ...], Any] | None:
        """Inputs of a batch size and what the model gives; None where it raises."""
        args, kwargs = drawn((self.args, dict(self.kwargs)), self.batch, size, dict(sizes))
        try:
            with redirect_stderr(io.StringIO()):  # torch.fx prints the code that fails
                return self.bind(args, kwargs), reference(model or self.model, args, kwargs)
        except TraceError as error:
            refused = isinstance(error.__cause__, ObjectiveError)
            self.short_of_memory |= lacks_memory(error.__cause__)
            return (self.bind(args, kwargs), REFUSED) if refused else None

    def check(
        self, module: fx.GraphModule, once: Recording, conditions: Sequence[Condition] = ()
    ) -> Verdict:
        """Compare a program with the model on the example, and on drawn inputs of other batches.

        Their sizes are twice the example's and, where all values of the program have together at
        most `MOST_ELEMENTS` there, 4 times the example's but at least 16.

        Raises:
            TraceError: it differs from the model on the example or on drawn inputs of its shapes.
        """
        compare_outputs(self.expected, once.values["output"], self.model, "the example inputs")
        larger = max(LARGER * self.batch, AT_LEAST)
        fits = once.elements * larger <= MOST_ELEMENTS * self.batch
        free, doubled = True, Recording()
        with _own_randomness(self.args):
            for size in (2 * self.batch, larger)[: 1 + fits]:
                try:
                    found = self._compare(module, size, conditions)
                except TraceError:
                    free, found = False, Recording()
                doubled = found if size == 2 * self.batch else doubled
            if not doubled.values:  # otherwise that says as much, and more
                self._compare(module, self.batch)
            return replace(self._sizes(module, once, conditions), free=free, doubled=doubled)

    def singles(
        self, module: fx.GraphModule, conditions: Sequence[Condition]
    ) -> Iterator[list[Axis]]:
        """Axes of which the program gets size one wrong: torch.export takes no size for one."""
        raw, model = (self.args, dict(self.kwargs)), copy.deepcopy(self.model)  # it may note sizes
        with _own_randomness(self.args):
            for axes in [batch_axes(raw, self.batch), *axes_by_size(raw).values()]:
                case = self._drawn(self.batch, tuple((axis, 1) for axis in axes), model)
                if case is None or case[1] is REFUSED or not _meets(case[0], conditions):
                    continue
                try:
                    self._agrees(module, case, "random inputs of size one")
                except TraceError as error:
                    if error.__cause__ is None:  # the program runs, and gives something else
                        example = self.bind(self.args, self.kwargs)
                        yield sorted(changed(example, case[0], batch=True))

    def _sizes(
        self, module: fx.GraphModule, once: Recording, conditions: Sequence[Condition]
    ) -> Verdict:
        """Sizes at which the program gives what the model gives, and axes where it does not."""
        example, agreed = self.bind(self.args, self.kwargs), []
        moving = dict[str, frozenset[int]]()
        frozen = set[tuple[int, int, int]]()
        for case in self._resized(once.elements):
            varied = changed(example, case[0])
            if not _meets(case[0], conditions):
                continue
            try:
                found = self._agrees(
                    module, case, f"random inputs of other sizes ({shapes_of(case[0])})"
                )
            except TraceError:
                frozen.update(frozen_axes(example, varied))
            else:
                agreed += [varied] if found.values else []
                for name, value in found.values.items():
                    axes = changed(once.values[name], value, batch=True)
                    moving[name] = moving.get(name, frozenset()) | {axis for _, axis in axes}
        return Verdict(True, Recording(), tuple(agreed), tuple(sorted(frozen)), moving)

    def _resized(self, elements: int) -> list[tuple[tuple[Any, ...], Any]]:
        """Inputs of other sizes that the model takes, one case for each size of its example.

        Args:
            elements: of all values of a program on the example; the larger, the less is tried.
        """
        raw, found = (self.args, dict(self.kwargs)), []
        for size, axes in axes_by_size(raw).items():
            for sizes in variations(size, axes):
                growth = math.prod(now / size for now in sizes.values())
                if elements * growth > MOST_RESIZED:
                    continue
                case = self.drawn(self.batch, tuple(sizes.items()))
                if case is not None:
                    found.append(case)
                    break
        return found

    def _compare(
        self, module: fx.GraphModule, size: int, conditions: Sequence[Condition] = ()
    ) -> Recording:
        """The run of a program that agrees with the model; an empty one where the model raises."""
        case = self.drawn(size)
        if case is None or not _meets(case[0], conditions):
            return Recording()
        return self._agrees(module, case, f"random inputs (a batch of {size})")

    def _agrees(
        self, module: fx.GraphModule, case: tuple[tuple[Any, ...], Any], label: str
    ) -> Recording:
        """The run of a program that gives what the model gives; an empty one for lack of memory.

        Raises:
            TraceError: it does not.
        """
        args, expected = case
        if expected is REFUSED:
            raise TraceError("A pruned network within the model takes no other size.")
        try:
            found = run(module, args)
        except Exception as error:
            if lacks_memory(error):
                self.short_of_memory = True
                return Recording()  # which says nothing of the size
            raise TraceError(
                f"The traced program of {type(self.model).__name__} fails on {label}, which the "
                f"model takes: {type(error).__name__}: {error}"
            ) from error
        compare_outputs(expected, found.values["output"], self.model, label)
        return found


def _meets(args: Any, conditions: Sequence[Condition]) -> bool:
    leaves = pytree.tree_leaves(args)
    return all(condition.holds(leaves) for condition in conditions)


def drawn(value: Any, batch: int, size: int, sizes: Varied = _AS_IT_IS) -> Any:
    """Nested inputs with every tensor drawn anew, those of a batch in another batch size.

    Args:
        value: the inputs.
        batch: their batch size.
        size: that of the new ones.
        sizes: of other axes, where they change.
    """
    generator = torch.Generator().manual_seed(0)
    leaves, structure = pytree.tree_flatten(value)

    def draw(place: int, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        grows = leaf.ndim > 0 and leaf.shape[0] == batch != size
        shape = (size, *leaf.shape[1:]) if grows else tuple(leaf.shape)
        shape = tuple(sizes.get((place, axis), known) for axis, known in enumerate(shape))
        return _like(leaf, shape, generator)

    new = [draw(place, leaf) for place, leaf in enumerate(leaves)]
    return pytree.tree_unflatten(new, structure)


def _like(leaf: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if not leaf.numel():
        return leaf.new_zeros(shape)
    if leaf.dtype == torch.bool:
        return torch.rand(shape, generator=generator).lt(0.5).to(leaf.device)
    if not (leaf.is_floating_point() or leaf.is_complex()):
        low, high = int(leaf.min()), int(leaf.max())
        high = min(high, torch.iinfo(torch.int64).max - 1)
        values = torch.randint(low, high + 1, shape, generator=generator)
        return values.to(leaf.device, leaf.dtype)
    wide = torch.complex128 if leaf.is_complex() else torch.float64
    values = torch.randn(shape, generator=generator, dtype=wide)
    known = leaf.detach()[leaf.isfinite()].to("cpu", wide)
    spread = float(known.std()) if known.numel() > 1 else 0.0
    if spread > 0:
        values = values * spread + known.mean()
    return values.to(leaf.device, leaf.dtype)


def compare_outputs(expected: Any, found: Any, model: nn.Module, label: str) -> None:
    """Raise TraceError unless the program gives what the model gives, output by output.

    The largest difference of an output counts relative to the largest finite number in it (1e-9 in
    float64, 1e-4 in float32, 1e-2 in half precision); infinite and undefined entries must be in the
    same places, and everything else must be equal.
    """
    name = type(model).__name__
    if _structure(expected) != _structure(found):
        raise TraceError(
            f"The traced program of {name} gives its outputs as {_structure(found)}, the model as "
            f"{_structure(expected)}, on {label}."
        )
    for (path, a), b in zip(named_leaves(expected), leaves_of(found), strict=False):
        problem = _difference(a, b)
        if problem:
            raise TraceError(
                f"The traced program of {name} gives other outputs than the model on {label}: "
                f"output{path} {problem}. {_REASON}"
            )


def _difference(a: Any, b: Any) -> str:
    """What is different about an output; nothing where it is the same."""
    if not isinstance(a, torch.Tensor):
        plain = isinstance(a, int | float | complex | str | None)
        both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
        return f"is {b!r}, not {a!r}" if plain and not both_nan and a != b else ""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"is {tuple(b.shape)} of {b.dtype}, not {tuple(a.shape)} of {a.dtype}"
    if not (a.is_floating_point() or a.is_complex()):
        count = int((a != b).sum())
        return f"differs in {count} of {a.numel()} entries" if count else ""
    found = apart(a, b)
    if found is None:
        return "is infinite or undefined (NaN) at other places"
    worst, scale = found
    if worst <= TOLERANCE.get(a.dtype, COARSE) * scale:
        return ""
    return f"differs by up to {worst:.3g} where its largest entry is {scale:.3g}"


def apart(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float] | None:
    """The largest difference of two tensors, and the largest entry of the first.

    None where their shapes or dtypes differ, or their entries that are no finite numbers.
    """
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return None
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()):
        return None
    beyond, others = a[~finite], b[~finite]
    if not ((beyond == others) | (beyond.isnan() & others.isnan())).all():
        return None
    wide = torch.complex128 if a.is_complex() else torch.float64
    left, right = a[finite].to(wide), b[finite].to(wide)
    if not left.numel():
        return 0.0, 0.0
    return float((left - right).abs().max()), float(left.abs().max())


def _structure(value: Any) -> str:
    """How an output is nested, in words: "dict(logits: tensor)"."""
    if isinstance(value, torch.Tensor):
        return "tensor"
    kind = type(value).__name__.removeprefix("immutable_")
    if isinstance(value, Mapping):
        return f"{kind}({', '.join(f'{k}: {_structure(v)}' for k, v in value.items())})"
    if isinstance(value, list | tuple):
        return f"{kind}({', '.join(map(_structure, value))})"
    return kind
