"""The arguments of a traced program: its model's own, held to the values that tracing fixed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.fx.node import has_side_effect
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils import _pytree as pytree

from ..errors import ObjectiveError
from ..values.description import brief
from ..values.nested import batch_size, holds_tensor
from .sizes import Condition

_PLAIN = (bool, int, float, str, type(None))
_DECIDED = "tracing fixed what the model's Python code computed or decided by it"
_EMPTY = inspect.Parameter.empty


class Traced(NamedTuple):
    """The values that a program was traced for; it takes the arguments of its model, and no others.

    Plain data, so that the code of a pruned model can hold it.

    Args:
        model: the name of the model's class.
        names: the parameters of its `forward`, in their order.
        constants: those that are no inputs, with their values as `plain` gives them.
        batch: examples in a batch, where tracing fixed that; otherwise 0.
        sizes: of other axes that are fixed, what the example had: (input tensor, axis, size).
        conditions: that sizes have to meet, each a `Condition` as a plain tuple.
        reason: what fixed the sizes, where that is the removal.
    """

    model: str
    names: tuple[str, ...]
    constants: tuple[tuple[str, Any], ...] = ()
    batch: int = 0
    sizes: tuple[tuple[int, int, int], ...] = ()
    conditions: tuple[tuple[Any, ...], ...] = ()
    reason: str = ""

    def also(self, sizes: Iterable[tuple[int, int, int]], reason: str) -> Traced:
        """The same with more sizes that are fixed, and why they are."""
        more = tuple(sorted({*self.sizes, *sizes}))
        return self._replace(sizes=more, reason=self.reason or reason)

    def only(self, names: Mapping[str, str], given: Mapping[str, Any]) -> Traced:
        """The same of some of the arguments.

        Args:
            names: of these, and what they are called now.
            given: all arguments by name, as in the example.
        """
        constants = dict(self.constants)
        tensors = [name for name in self.names if name not in constants]
        owners = [name for name in tensors for _ in pytree.tree_leaves(given[name])]
        places = {place: i for i, place in enumerate(p for p, n in enumerate(owners) if n in names)}
        conditions = []
        for text, code, held in self.conditions:
            if {place for _, place, _ in held} <= places.keys():
                conditions.append((text, code, tuple((s, places[p], a) for s, p, a in held)))
        return self._replace(
            names=tuple(names.values()),
            constants=tuple((names[n], v) for n, v in self.constants if n in names),
            sizes=tuple((places[p], a, size) for p, a, size in self.sizes if p in places),
            conditions=tuple(conditions),
        )

    @property
    def signature(self) -> inspect.Signature:
        """That of the model, in which a constant that is left out is what it was.

        Parameters behind a constant need a default as well: None, which `inputs` refuses.
        """
        constants, parameters = dict(self.constants), []
        default: Any = _EMPTY
        for name in self.names:
            if name in constants:
                value = constants[name]
                default = value if isinstance(value, _PLAIN) else None
            elif default is not _EMPTY:
                default = None
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(name, kind, default=default))
        return inspect.Signature(parameters)

    def positional(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """What to call the model with: its inputs, and the constants that stand between them."""
        constants, rest, given = dict(self.constants), iter(inputs), []
        for name in self.names:
            value = constants.get(name)
            given.append(value if isinstance(value, _PLAIN) else None)
            if name not in constants:
                given[-1] = next(rest)
        while given and self.names[len(given) - 1] in constants:
            given.pop()
        return tuple(given)

    def inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The inputs in a call of the model, in their order.

        Raises:
            TypeError: the arguments are not those of the model.
            ObjectiveError: they have other values, or another batch or size, than was traced.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        constants, found = dict(self.constants), []
        for name, value in bound.arguments.items():
            if name in constants:
                self._compare(name, value, constants[name])
            elif value is None:
                raise ObjectiveError(
                    f"{self.model} was traced with a tensor as argument {name!r}, and was called "
                    "without one. Give it, or trace the model without it."
                )
            else:
                found.append(value)
        self.check(tuple(found), f"{self.model} was called with")
        return tuple(found)

    def _compare(self, name: str, value: Any, constant: Any) -> None:
        left_out = value is None and not isinstance(constant, _PLAIN)
        if left_out or value is constant or plain(value) == constant:
            return
        raise ObjectiveError(
            f"{self.model} was traced with {name}={_shown(constant)} and computes what that gives; "
            f"it was called with {name}={_shown(plain(value))}. Leave the argument out, or trace "
            "the model with the other value."
        )

    def check(self, inputs: Any, subject: str) -> None:
        """Raise ObjectiveError unless inputs have the traced batch and sizes, where these count.

        Args:
            inputs: in their order, of a whole batch.
            subject: what an error says about "a batch of 3 examples", as its beginning.
        """
        size = batch_size(inputs) if self.batch else 0
        if size != self.batch:
            raise ObjectiveError(
                f"{subject} a batch of {size} examples, but the network was traced with "
                f"{self.batch}, and its Python code computes or decides something by the size of "
                f"the batch, which tracing fixed. Give it batches of {self.batch} (a loader: "
                f"batch_size={self.batch}, drop_last=True), or trace it with an example of {size}."
            )
        leaves = pytree.tree_leaves(inputs)
        why = self.reason or _DECIDED
        for place, axis, wanted in self.sizes:
            leaf = leaves[place] if place < len(leaves) else None
            if not isinstance(leaf, torch.Tensor) or axis >= leaf.ndim:
                continue
            if leaf.shape[axis] != wanted:
                raise ObjectiveError(
                    f"{subject} input {place} of shape {tuple(leaf.shape)}, but its axis {axis} "
                    f"must have size {wanted}, as in the traced example: {why}. "
                    f"Give it that size, or trace the model with one of {leaf.shape[axis]}."
                )
        for condition in (Condition(*plain) for plain in self.conditions):
            if not condition.holds(leaves):
                shapes = [tuple(v.shape) for v in leaves if isinstance(v, torch.Tensor)]
                raise ObjectiveError(
                    f"{subject} inputs of shapes {shapes}, but {condition.text} must hold, as in "
                    f"the traced example: {_DECIDED}. Trace the model with such inputs."
                )


def plain(value: Any) -> Any:
    """A number, text, truth or None as it is; of anything else a tuple with a few words.

    Examples:
        >>> from edgewise.tracing.signature import plain
        >>> plain(2.0), plain(torch.float16)
        (2.0, ('dtype torch.float16',))
    """
    if isinstance(value, _PLAIN):
        return value
    return ("a tensor" if holds_tensor(value) else brief(value),)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, _PLAIN) else str(value[0])


@has_side_effect  # or torch.fx drops what nothing reads
def as_traced(traced: Traced, *values: Any) -> None:
    """Raise ObjectiveError unless a call has the values that a program was traced for."""
    if has_torch_function(values):  # a tracer's proxies: stay one operator
        handle_torch_function(as_traced, values, traced, *values)
    else:
        traced.inputs(values, {})


def sign(graph: fx.Graph, traced: Traced) -> None:
    """Have a program take the arguments of its model, and refuse what it was not traced for."""
    for node in graph.find_nodes(op="call_function", target=as_traced):
        graph.erase_node(node)
    if not (traced.constants or traced.batch or traced.sizes or traced.conditions):
        return
    known = {str(node.target): node for node in graph.find_nodes(op="placeholder")}
    body = next(node for node in graph.nodes if node.op != "placeholder")
    nodes = []
    with graph.inserting_before(body):
        for name, parameter in traced.signature.parameters.items():
            node = known.get(name) or graph.placeholder(name)
            body.prepend(node)
            node.args = () if parameter.default is _EMPTY else (parameter.default,)
            nodes.append(node)
        graph.call_function(as_traced, (traced, *nodes))
