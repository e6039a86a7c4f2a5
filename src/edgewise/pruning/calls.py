"""How a model calls its modules: what goes in, and what comes out, on the traced example."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.utils.hooks import RemovableHandle

from ..errors import FormError
from ..graph.graph import Graph, once
from ..tracing.agreement import drawn
from ..tracing.program import Program, evaluating, module_stack
from ..values.nested import copies_of, holds_tensor

Fill = Literal["zero", "one", "no channels"]
ZERO: Fill = "zero"
ONE: Fill = "one"
EMPTY: Fill = "no channels"
Sizes = tuple[int, ...]
Print = tuple[float, ...]
_NEAR = 1e-3  # by which sums over the same values may differ


def print_of(value: torch.Tensor) -> Print:
    """Numbers by which a value is known again."""
    numbers = value.detach().double().flatten()
    return (numbers.sum().item(), numbers.abs().sum().item(), *numbers[:4].tolist())


def _far(a: Print, b: Print) -> float:
    """How far two values that should be the same are from each other, relative."""
    scale = max(map(abs, b), default=0.0) + 1e-9
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0) / scale


@dataclass(frozen=True)
class Given:
    """A tensor that a module is called with."""

    number: int
    name: str
    shape: Sizes
    floating: bool
    print: Print

    @property
    def place(self) -> list[Any]:
        return [self.number, self.name]


@dataclass(frozen=True)
class Call:
    """The first call of a module."""

    inputs: tuple[Given, ...]
    output: Any


class Called(nn.Module):
    """A model of the user's class that takes the arguments of its traced program."""

    def __init__(self, model: nn.Module, program: Program) -> None:
        super().__init__()
        self.model, self.traced = model, program.traced
        self.names, self.fixed = program.names, program.fixed

    def forward(self, *args: Any) -> Any:
        """What the model gives, of sizes that were traced."""
        return self.of(self.traced.inputs(args, {}))

    def of(self, inputs: tuple[Any, ...]) -> Any:
        """What it gives for inputs of the program."""
        return self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)


class Calls:
    """The modules of a model and how they are called, at the example and at other sizes.

    Args:
        graph: the traced graph; its program knows the model.

    Raises:
        FormError: the model is not there any more, or cannot be copied.
    """

    def __init__(self, graph: Graph) -> None:
        program: Program = graph.program
        if program.model is None:
            raise FormError("This graph came from another process, without the model itself.")
        self.graph, self.model = graph, program.model
        self.nodes: dict[str, fx.Node] = {n.name: n for n in program.module.graph.nodes}
        self.data = {vertex.node: index for index, vertex in enumerate(graph.vertices)}
        self.once = _recorded(self.model, program, program.args)
        self.other = [self.once]
        for sizes in program.sizes[:1] or ({},):
            args = drawn(program.args, program.batch, program.other_batch, sizes)
            with suppress(Exception):  # the model refuses other sizes, as it may
                self.other.append(_recorded(self.model, program, args))

    def given(self, path: str, fill: Fill, full: bool, source: int | None, dim: int) -> Any:
        """What a module that is gone or passed gives; see `Edit.gives`.

        Args:
            path: of the module.
            fill: what leaves no trace.
            full: whether in the shape it had, not as a single number.
            source: the vertex that it passes on, None if it is gone.
            dim: that has no channels, where that is the fill.
        """
        if path not in self.once:
            raise FormError(f"Module {path!r} is not called as a module.")

        def tensor(leaf: _Leaf, at: tuple[Any, ...]) -> Any:
            if source is not None and (same := self.input(path, source, leaf.shape)):
                return {"input": same.place}
            return self._constant(path, at, fill, full, dim)

        return self._template(path, self.once[path].output, (), tensor)

    def input(self, path: str, vertex: int, shape: Sizes | None = None) -> Given | None:
        """The input of a module that is the value of a vertex, None if there is none."""
        known = self.prints.get(self.graph.vertices[vertex].node)  # a tuple of a layer has none
        if known is None:
            return None
        own, wanted = known
        size = shape or own
        inputs = self.once[path].inputs if path in self.once else ()
        same = [given for given in inputs if given.shape == size and given.floating]
        best = min(same, key=lambda given: _far(given.print, wanted), default=None)
        return best if best is not None and _far(best.print, wanted) <= _NEAR else None

    def gives(self, path: str, vertex: int) -> tuple[int | None] | None:
        """Whether a module gives the value of a vertex: (None,), or (its place in a tuple,)."""
        known = self.prints.get(self.graph.vertices[vertex].node)
        if known is None or path not in self.once:
            return None
        value = self.once[path].output
        leaves: list[tuple[int | None, Any]] = [(None, value)]
        leaves = list(enumerate(value)) if type(value) is tuple else leaves
        for place, leaf in leaves:
            same = isinstance(leaf, _Leaf) and leaf.shape == known[0]
            if same and _far(leaf.print, known[1]) <= _NEAR:
                return (place,)
        return None

    @cached_property
    def prints(self) -> dict[str, tuple[Sizes, Print]]:
        """Shapes and prints of what the program's operators give on the example."""
        program: Program = self.graph.program
        interpreter = _Printing(program.module)
        with evaluating(program.module), torch.no_grad():
            interpreter.run(*copies_of(program.args))
        return interpreter.prints

    def _template(self, path: str, value: Any, at: tuple[Any, ...], tensor: Any) -> Any:
        """A value in plain data, its tensors by a function of them and of their place."""
        if isinstance(value, _Leaf):
            return tensor(value, at)
        if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
            members = [self._template(path, v, (*at, i), tensor) for i, v in enumerate(value)]
            return {"list" if isinstance(value, list) else "tuple": members}
        if type(value) is dict:
            entries = value.items()
            return {"dict": {k: self._template(path, v, (*at, k), tensor) for k, v in entries}}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise FormError(f"Module {path!r} gives a {type(value).__name__}, which no edit can give.")

    def _constant(self, path: str, at: tuple[Any, ...], fill: Fill, full: bool, dim: int) -> Any:
        inputs = self.once[path].inputs
        floating = [given for given in inputs if given.floating] or list(inputs)
        if not floating:
            raise FormError(f"Module {path!r} is called without a tensor.")
        number = 1 if fill == ONE else 0
        if fill != EMPTY and not full:
            return {"fill": number, "shape": [], "like": floating[0].place}
        for given in floating:
            shape = self._shape(path, at, given)
            if shape is not None:
                if fill == EMPTY:
                    if dim >= len(shape):
                        raise FormError(f"Module {path!r} also gives what has no axis {dim}.")
                    shape[dim] = 0
                return {"fill": number, "shape": shape, "like": given.place}
        raise FormError(f"The size of what module {path!r} gives is not known from its inputs.")

    def _shape(self, path: str, at: tuple[Any, ...], given: Given) -> list[Any] | None:
        """The shape of an output in numbers and sizes of an input, as all recorded calls agree."""
        pairs = []
        for recorded in self.other:
            call = recorded.get(path)
            if call is None:
                return None
            match = [g for g in call.inputs if g.place == given.place]
            value = call.output
            for key in at:
                value = value[key]
            if not match or not isinstance(value, _Leaf):
                return None
            pairs.append((match[0].shape, value.shape))
        return [self._axis(axis, pairs) for axis in range(len(pairs[0][1]))]

    def _axis(self, axis: int, pairs: list[tuple[Sizes, Sizes]]) -> Any:
        outs = [out[axis] for _, out in pairs]
        ndim = len(pairs[0][0])
        order = sorted(range(ndim), key=lambda number: number != axis)
        constant = len(set(outs)) == 1
        if constant and len(pairs) > 1:
            return outs[0]
        for number in order:
            ins = [inner[number] for inner, _ in pairs]
            for divisor in range(1, 65):
                for up in (True, False):
                    if all(
                        o == ((i + divisor - 1) // divisor if up else i // divisor)
                        for i, o in zip(ins, outs, strict=True)
                    ):
                        return [number, divisor, up]
        return outs[0]


class _Printing(fx.Interpreter):
    """Runs a program and notes by what its values are known again."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.prints: dict[str, tuple[Sizes, Print]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.prints[n.name] = tuple(value.shape), print_of(value)
        return value


@dataclass(frozen=True)
class _Leaf:
    shape: Sizes
    print: Print


def _recorded(model: nn.Module, program: Program, args: tuple[Any, ...]) -> dict[str, Call]:
    """The first call of every module, in eval mode, on a copy of the model."""
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise FormError(f"The model cannot be copied (copy.deepcopy): {error}") from error
    found: dict[str, Call] = {}
    handles: list[RemovableHandle] = []
    for path, module in copied.named_modules():
        handles.append(module.register_forward_hook(_note(found, path), with_kwargs=True))
    with evaluating(copied), torch.no_grad():
        Called(copied, program).of(copies_of(args))
    return found


def _note(found: dict[str, Call], path: str) -> Any:
    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if path not in found:
            found[path] = Call(tuple(_inputs(module, args, kwargs)), _leaves(output))

    return note


def _inputs(module: nn.Module, args: Any, kwargs: Any) -> Iterator[Given]:
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for number, value in enumerate(args):
        if isinstance(value, torch.Tensor):
            name = names[number] if number < len(names) else ""
            yield _given(number, name, value)
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
            yield _given(names.index(name) if name in names else 0, name, value)


def _given(number: int, name: str, value: torch.Tensor) -> Given:
    shape = tuple(value.shape)
    return Given(number, name, shape, value.is_floating_point(), print_of(value))


def _leaves(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _Leaf(tuple(value.shape), print_of(value))
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(map(_leaves, value))
    if type(value) is dict:
        return {name: _leaves(member) for name, member in value.items()}
    return value if not holds_tensor(value) else object()


@once
def module_paths(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """For every vertex the paths of the modules in whose calls it runs, the innermost last."""
    nodes: dict[str, fx.Node] = {n.name: n for n in graph.program.module.graph.nodes}
    return tuple(
        tuple(dict.fromkeys((*module_stack(nodes[v.node]), *filter(None, [v.module]))))
        for v in graph.vertices
    )
