"""The traced network as something to run, and what its values are made of."""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import CodeGen

from ..errors import ObjectiveError
from ..values.nested import batch_size, device_of
from .sizes import Condition, OnlySizes, Varied, only


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
        fixed_batch: whether the program is right for batches of the size `batch` only, as Python
            code of the model computed or decided something by it.
        frozen: (input tensor, axis, size) of lengths, heights and widths that it froze likewise.
        sizes: other ones at which it gives what the model gives.
        moving: by node, the axes of its tensor that are others at these.
        conditions: on sizes, by which Python code of the model decided what the program does.
    """

    module: fx.GraphModule
    args: tuple[Any, ...]
    fixed: Mapping[str, Any]
    values: Mapping[str, Any]
    batch: int
    modes: Mapping[str, bool]
    fixed_batch: bool = False
    frozen: tuple[tuple[int, int, int], ...] = ()
    sizes: tuple[Varied, ...] = ()
    moving: Mapping[str, frozenset[int]] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """What tracing took from the example, in words."""
        own = [f"argument {name}={value!r}" for name, value in self.fixed.items()]
        own += [f"batch size {self.batch}"] if self.fixed_batch else []
        own += [f"input {place}, axis {axis}: size {size}" for place, axis, size in self.frozen]
        known = {(place, axis) for place, axis, _ in self.frozen}
        return (*own, *(c.text for c in self.conditions if not known.issuperset(c.axes.values())))

    @property
    def guard(self) -> OnlySizes:
        """What refuses other sizes than the program takes."""
        reason = "tracing fixed what the model's Python code computed or decided by it"
        return OnlySizes(self.names, self.frozen, reason, self.conditions)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs, in the order of `args`."""
        nodes = self.module.graph.find_nodes(op="placeholder")
        return tuple(str(node.target) for node in nodes)

    @property
    def device(self) -> torch.device:
        """Where the inputs are, as those of the example were."""
        return device_of(self.args) or torch.device("cpu")


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
    """A graph as a module that runs it, with what it uses of `root`.

    Args:
        root: a module, or its parts by their paths.
        graph: of torch.fx.
        name: of the module's class.
    """
    if type(graph._codegen) is CodeGen:
        graph.set_codegen(_AnyName())
    return fx.GraphModule(root, graph, class_name=name)


@dataclass(frozen=True)
class OnlyBatch:
    """A hook before `forward` that refuses batches of another size.

    Args:
        size: examples in a batch.
    """

    size: int

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ObjectiveError where the inputs have another batch size."""
        self.check((args, kwargs), f"{type(module).__name__} was called with a batch")

    def check(self, inputs: Any, subject: str) -> None:
        """Raise ObjectiveError unless inputs have this batch size."""
        size = batch_size(inputs)
        if size != self.size:
            raise ObjectiveError(
                f"{subject} of {size} examples, but the network was traced with {self.size}, and "
                "its Python code computes or decides something by the size of the batch, which "
                f"tracing fixed. Give it batches of {self.size} (a loader: batch_size={self.size}, "
                f"drop_last=True), or trace it with an example of {size}."
            )


def guarded(module: nn.Module, program: Program) -> nn.Module:
    """The module, refusing other batches and sizes than the traced ones that tracing fixed."""
    if program.fixed_batch:
        module.register_forward_pre_hook(OnlyBatch(program.batch), with_kwargs=True)
    return only(module, program.guard)


def keeps_batch(module: nn.Module) -> bool:
    """Whether a module, or a part of it, refuses other batch sizes because tracing fixed it."""
    hooks = (hook for part in module.modules() for hook in part._forward_pre_hooks.values())
    return any(isinstance(hook, OnlyBatch) for hook in hooks)


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
