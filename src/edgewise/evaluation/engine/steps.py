"""A mask as steps: each computes one value, and masks that compute the same share the step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from ...graph.graph import Mask
from ...tracing.signature import Traced
from . import batch_norm
from .refit import Refit

_RELU = (torch.relu, nn.functional.relu, "relu")
_ADD = (operator.add, torch.add, "add")


@dataclass(eq=False, slots=True, weakref_slot=True)
class Step:
    """One value: an operation on the values of other steps.

    Args:
        inputs: the steps it reads.
        call: the operation, a function of their values.
        free: it costs nothing (an input, a parameter), so nothing is gained by keeping it.
        fresh: its value is new memory, no view of another value.
        write: the same operation written into the value of an input, if that can be done.
        learner: what learns from its inputs, in a calibration.
    """

    inputs: tuple[Step, ...]
    call: Callable[..., Any]
    free: bool = False
    fresh: bool = False
    write: Callable[..., Any] | None = None
    learner: batch_norm.Norm | Refit | None = None

    def reading(self, inputs: tuple[Step, ...]) -> Step:
        """The same operation on other values."""
        return Step(inputs, self.call, self.free, self.fresh, self.write, self.learner)


@dataclass
class Program:
    """A mask as two sequences of steps: for the data, and for calibration before it.

    Args:
        mask: the mask.
        inputs: the steps that stand for the network's inputs.
        parts: which of them are inputs of each part.
        outputs: what each part gives.
        steps: for the data, in order.
        calibration: up to the last step that learns; empty if there is none.
        learners: the steps that learn in it.
        guard: what refuses sizes of inputs, where it holds for those of the example only.
    """

    mask: Mask
    inputs: tuple[Step, ...] = ()
    parts: tuple[slice, ...] = ()
    outputs: tuple[Step, ...] = ()
    steps: list[Step] = field(default_factory=list)
    calibration: list[Step] = field(default_factory=list)
    learners: list[Step] = field(default_factory=list)
    guard: Traced | None = None

    @property
    def recovered(self) -> dict[str, torch.Tensor]:
        """The recovered tensors, by the names they have in the pruned model."""
        learned = [step.learner.tensors for step in self.learners if step.learner is not None]
        return {name: value.clone() for tensors in learned for name, value in tensors.items()}


def missing(order: Iterable[Step], goals: Iterable[Step], known: Container[Step]) -> list[Step]:
    """The steps to run for these goals, in order, when some values are known."""
    wanted = set(goals)
    queue = list(wanted)
    while queue:
        for source in queue.pop().inputs:
            if source not in wanted and source not in known:
                wanted.add(source)
                queue.append(source)
    return [step for step in order if step in wanted]


def upstream(goals: Sequence[Step]) -> list[Step]:
    """The goals and all that they read, each behind what it reads and not much ahead of its use."""
    found: dict[Step, None] = {}
    stack = list(reversed(goals))
    while stack:
        ahead = [source for source in reversed(stack[-1].inputs) if source not in found]
        if ahead:
            stack += ahead
        else:
            found[stack.pop()] = None
    return list(found)


def described(value: Any, steps: Mapping[fx.Node, Hashable]) -> Hashable:
    """Arguments as something to compare: what stands for nodes, text for constants."""
    if isinstance(value, fx.Node):
        return steps[value]
    if isinstance(value, tuple | list):
        return (type(value).__name__, *(described(v, steps) for v in value))
    if isinstance(value, dict):
        return ("dict", *((k, described(v, steps)) for k, v in value.items()))
    if isinstance(value, slice):
        return ("slice", *(described(v, steps) for v in (value.start, value.stop, value.step)))
    return repr(value)


def step_of(node: fx.Node, target: Any, inputs: tuple[Step, ...]) -> Step:
    """A node as it stands."""
    if node.op == "placeholder":
        return Step((), _unbound, free=True)
    if node.op == "get_attr":
        return Step((), lambda: target, free=True)
    if node.op == "output":
        return Step(inputs, _bound(node, lambda value: value))
    call = _bound(node, _method(target) if node.op == "call_method" else target)
    write = _written(node, target)
    fresh = write is not None or batch_norm.makes_memory(target)
    return Step(inputs, call, fresh=fresh, write=write)


def gathered(value: Any, steps: dict[fx.Node, Step]) -> Step:
    """One member of what a program gives."""
    nodes: dict[fx.Node, None] = {}
    fx.map_arg(value, nodes.setdefault)

    def call(*values: Any) -> Any:
        return fx.map_arg(value, dict(zip(nodes, values, strict=True)).__getitem__)

    return Step(tuple(steps[node] for node in nodes), call)


def _unbound() -> Any:
    raise AssertionError("an input has no value of its own")


def _method(name: str) -> Callable[..., Any]:
    return lambda value, *args, **kwargs: getattr(value, name)(*args, **kwargs)


def _bound(node: fx.Node, function: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a node as a function of the values of its input nodes."""
    nodes = node.all_input_nodes
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    places = [(i, nodes.index(a)) for i, a in enumerate(node.args) if isinstance(a, fx.Node)]
    if len(places) < len(found):  # some are inside lists, slices or keywords
        return lambda *values: _call_nested(function, node, dict(zip(nodes, values, strict=True)))
    arguments, kwargs = list(node.args), dict(node.kwargs)

    def call(*values: Any) -> Any:
        args = arguments.copy()
        for place, which in places:
            args[place] = values[which]
        return function(*args, **kwargs)

    return call


def _call_nested(function: Callable[..., Any], node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args: Any
    kwargs: Any
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return function(*args, **kwargs)


def _written(node: fx.Node, target: Any) -> Callable[..., Any] | None:
    """The operation of a node written into its first input; inputs may change places."""
    rectifies = target in _RELU or (type(target) is nn.ReLU and batch_norm.plain(target))
    if rectifies and len(node.args) == 1 and node.kwargs in ({}, {"inplace": False}):
        return torch.relu_
    if target in _ADD and len(node.args) == len(node.all_input_nodes) == 2 and not node.kwargs:
        return _add_into
    return None


def _add_into(first: Any, second: Any) -> Any:
    """The sum, in the first if it has the same form as a new tensor would have."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        forms = [(v.shape, v.stride(), v.dtype) for v in (first, second)]
        if forms[0] == forms[1]:
            return first.add_(second)
    return first + second
