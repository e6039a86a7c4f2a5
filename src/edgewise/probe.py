"""Running a captured program on the example inputs: what every node gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from .errors import TraceError
from .macs import no_macs
from .nested import batch_size, copies_of, holds_tensor, leaves_of
from .ops import TABLE


@dataclass(frozen=True)
class Recording:
    """One run of a program.

    Args:
        values: what each node gave, tensors without their data.
        constant_macs: multiply-accumulates of the nodes that do not depend on the inputs' values,
            such as the projection of a table of relative positions.
    """

    values: dict[str, Any] = field(default_factory=dict)
    constant_macs: dict[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> Mapping[str, Any]:
        """The values that are no tensors: sizes, dtypes, devices."""
        return {k: v for k, v in self.values.items() if not holds_tensor(v)}


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.recording = Recording()
        self.data: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        fixed = not any(source in self.data for source in n.all_input_nodes)
        if fixed and self._takes_macs(n):
            with FlopCounterMode(display=False) as counter:
                value = super().run_node(n)
            self.recording.constant_macs[n.name] = int(counter.get_total_flops()) // 2
        else:
            value = super().run_node(n)
        if n.op == "get_attr" and isinstance(value, torch.Tensor):
            value = value.detach()
        if n.op == "placeholder" or (not fixed and holds_tensor(value)):
            self.data.add(n)
        self.recording.values[n.name] = value if n.op == "output" else _without_data(value)
        return value

    def _takes_macs(self, n: fx.Node) -> bool:
        if n.op == "call_module":
            rule = TABLE.find_module(self.module.get_submodule(str(n.target)))
        else:
            key = f"Tensor.{n.target}" if n.op == "call_method" else n.target
            rule = TABLE.find(key) if n.op.startswith("call") else None
        return rule is not None and rule.macs is not no_macs


def reference(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the user's own model gives in eval mode, its modes put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            return model(*copies_of(args), **copies_of(dict(kwargs)))
    except Exception as error:
        leaves = pytree.tree_leaves((args, dict(kwargs)))
        shapes = ", ".join(str(tuple(v.shape)) for v in leaves if isinstance(v, torch.Tensor))
        raise TraceError(
            f"{type(model).__name__} fails in eval mode on the example inputs of shape {shapes}: "
            f"{type(error).__name__}: {error}\nedgewise prunes what the model does in eval mode; "
            "check `model.eval()(...)` on these inputs."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def _without_data(value: Any) -> Any:
    def meta(leaf: Any) -> Any:
        return leaf.detach().to("meta") if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(meta, value)


def run(module: fx.GraphModule, args: tuple[Any, ...]) -> Recording:
    """Run a program once; tensors of the recording are on the meta device, but for the output."""
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*copies_of(args))
    return recorder.recording


def run_doubled(module: fx.GraphModule, args: tuple[Any, ...]) -> Recording:
    """The same with every input repeated along dimension 0; empty where the model refuses it."""
    batch = batch_size(args)

    def twice(value: Any) -> Any:
        grows = isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == batch
        return torch.cat([value, value]) if grows else value

    try:
        return run(module, tuple(pytree.tree_map(twice, a) for a in args))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return Recording()


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


def compare_outputs(expected: Any, found: Any, model: nn.Module) -> None:
    """Raise TraceError unless the program gives what the model gives."""
    if _structure(expected) != _structure(found):
        raise TraceError(
            f"The traced program of {type(model).__name__} gives its outputs as "
            f"{_structure(found)}, the model as {_structure(expected)}."
        )
    pairs = zip(leaves_of(expected), leaves_of(found), strict=False)
    for a, b in pairs:
        if not isinstance(a, torch.Tensor):
            continue
        half = a.dtype in (torch.float16, torch.bfloat16)
        if not torch.allclose(a, b, rtol=1e-2 if half else 1e-4, atol=1e-5, equal_nan=True):
            raise TraceError(
                f"The traced program of {type(model).__name__} gives other outputs than the model "
                f"(largest difference {(a - b).abs().max().item():.3g}). The model probably writes "
                "into a tensor through a view, draws random numbers in eval mode, or keeps state "
                "between calls."
            )
