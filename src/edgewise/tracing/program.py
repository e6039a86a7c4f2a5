"""The traced network as something to run, and what its values are made of."""

import keyword
import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from ..values.nested import device_of
from .signature import Traced, plain
from .sizes import Condition, Varied
from .whole import Whole


@dataclass(frozen=True, eq=False)
class Program:
    """What a graph keeps to run and rewrite its network.

    Args:
        module: a private, functional copy of the model as fx, in eval mode.
        args: the example inputs, in the order of its placeholders.
        fixed: forward's other arguments, which are constants of the program.
        values: for nodes that give numbers rather than tensors, what they gave on the example.
        batch: examples in `args`.
        modes: the path of every module of the user's model, and whether it was in train mode.
        takes: how many examples a batch must have, as Python code of the model computed or decided
            something by that; 0 where any number will do.
        frozen: (input tensor, axis, size) of lengths, heights and widths that it froze likewise.
        sizes: other ones at which it gives what the model gives.
        model: the user's own; None in another process.
        parameters: names of forward's arguments, in its order.
        modal: whether the model's own code is known to do something else in train mode.
        moving: by node, the axes of its tensor that are others at these.
        conditions: on sizes, by which Python code of the model decided what the program does.
        whole: the model around it, where a part alone was traced.
    """

    module: fx.GraphModule
    args: tuple[Any, ...]
    fixed: Mapping[str, Any]
    values: Mapping[str, Any]
    batch: int
    modes: Mapping[str, bool]
    takes: int = 0
    frozen: tuple[tuple[int, int, int], ...] = ()
    sizes: tuple[Varied, ...] = ()
    model: nn.Module | None = None
    parameters: tuple[str, ...] = ()
    modal: bool = False
    moving: Mapping[str, frozenset[int]] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    whole: Whole | None = None

    def as_called(self) -> AbstractContextManager[None]:
        """Those in which it runs: the mixed precision in which a model calls its parts."""
        return nullcontext() if self.whole is None else self.whole.as_called()

    @property
    def example(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """What tracing was given, by place and by name: of a part, what the whole model was."""
        return (self.args, {}) if self.whole is None else self.whole.example or ((), {})

    @property
    def name(self) -> str:
        """That of the model's class."""
        return type(self.module).__name__

    @property
    def told(self) -> tuple[str, ...]:
        """What tracing took from the example, in words."""
        own = [f"argument {name}={value!r}" for name, value in self.fixed.items()]
        own += [f"batch size {self.takes}"] if self.takes else []
        own += [f"input {place}, axis {axis}: size {size}" for place, axis, size in self.frozen]
        known = {(place, axis) for place, axis, _ in self.frozen}
        own += [c.text for c in self.conditions if not c.places <= known]
        own += ["eval mode: the model's own code does something else in train mode"] * self.modal
        return tuple(own)

    @property
    def traced(self) -> Traced:
        """The arguments that the network takes, and the values that tracing fixed."""
        constants = tuple((name, plain(value)) for name, value in self.fixed.items())
        names, conditions = self.parameters or (*self.names, *self.fixed), self.conditions
        told = tuple(tuple(condition) for condition in conditions)
        return Traced(self.name, names, constants, self.takes, self.frozen, told)

    @property
    def other_batch(self) -> int:
        """Examples in another batch than the example's, to compare networks at: 1 or 2."""
        return self.batch if self.takes else 3 - min(self.batch, 2)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What to call the network with, by place: the inputs, and constants between them."""
        return self.traced.positional(self.args)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs, in the order of `args`."""
        nodes = self.module.graph.find_nodes(op="placeholder")
        return tuple(str(node.target) for node in nodes)

    @property
    def device(self) -> torch.device:
        """Where the inputs are, as those of the example were."""
        return device_of(self.args) or torch.device("cpu")


def picked(graph: fx.Graph, node: fx.Node, path: Any) -> fx.Node:
    """The nodes that pick a member of a nested value, by its path as pytree has it."""
    for key in path:
        if isinstance(key, pytree.GetAttrKey):
            node = graph.call_function(getattr, (node, key.name))
        else:
            place = key.idx if isinstance(key, pytree.SequenceKey) else key.key
            node = graph.call_function(operator.getitem, (node, place))
    return node


def module_stack(node: fx.Node) -> tuple[str, ...]:
    """The paths of the modules in whose calls a node runs, the innermost last."""
    entries = (node.meta.get("nn_module_stack") or {}).values()
    paths = [re.sub(r"@\d+$", "", str(entry[0])) for entry in entries]
    return tuple(dict.fromkeys(path for path in paths if path))


class _AnyName(CodeGen):
    """Python code for modules of any name; that of torch.fx puts names between quotes unescaped."""

    def _gen_python_code(self, nodes: Any, *args: Any, **kwargs: Any) -> Any:
        named = [(n, n.target) for n in nodes if n.op in ("call_module", "get_attr")]
        try:
            for node, target in named:
                node.target = ".".join(map(_spelled, target.split(".")))
            return super()._gen_python_code(nodes, *args, **kwargs)
        finally:
            for node, target in named:
                node.target = target


def _spelled(name: str) -> str:
    """A name as it may stand in code: an identifier, or the inside of a string that gives it."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name) and not keyword.iskeyword(name):
        return name  # Python reads some other letters as ASCII ones
    return "".join(f"\\U{ord(letter):08x}" for letter in name)


def as_module(root: nn.Module | dict[str, Any], graph: fx.Graph, name: str) -> fx.GraphModule:
    """A graph as a module that runs it, with what it uses of `root`, a module or parts by path."""
    if type(graph._codegen) is CodeGen:
        graph.set_codegen(_AnyName())
    return fx.GraphModule(root, graph, class_name=name)


def modes_of(module: nn.Module) -> dict[str, bool]:
    """The path of every module, and whether it is in train mode."""
    return {path: part.training for path, part in module.named_modules()}


def set_modes(module: nn.Module, modes: Mapping[str, bool]) -> nn.Module:
    """The module with the train and eval modes of the user's model, each by its path."""
    module.train(modes[""])
    for path, part in module.named_modules():
        part.training = modes.get(path, modes[""])
    return module


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Models in eval mode; each of their parts is in its own mode again afterwards."""
    modes = {part: part.training for model in models for part in model.modules()}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def attribute(module: nn.Module, path: str) -> Any:
    """What a dotted path leads to."""
    return operator.attrgetter(path)(module)
