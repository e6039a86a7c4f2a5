"""Running a captured program on the example inputs: what every node gives."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ..errors import lacks_memory
from ..graph.operators.macs import no_macs
from ..graph.operators.table import TABLE
from ..values.nested import batch_size, copies_of, doubled, holds_tensor, moved, tensors_of
from ..values.precision import full_precision
from .export_frontend import plain_attention


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

    @property
    def elements(self) -> int:
        """Of all tensors together."""
        return sum(tensor.numel() for tensor in tensors_of(self.values))


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.recording = Recording()
        self.data: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        fixed = not any(source in self.data for source in n.all_input_nodes)
        if fixed and self._takes_macs(n):
            with counted() as counter:
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


def _without_data(value: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("meta"), value)


def run(module: fx.GraphModule, args: tuple[Any, ...]) -> Recording:
    """Run a program once; tensors of the recording are on the meta device, but for the output."""
    recorder = _Recorder(module)
    with torch.no_grad(), full_precision():
        recorder.run(*copies_of(args))
    return recorder.recording


def run_doubled(module: fx.GraphModule, args: tuple[Any, ...]) -> Recording:
    """The same with every input repeated along dimension 0; empty where the model refuses it."""
    twice = doubled(args, of=batch_size(args))
    try:
        return run(module, twice)
    except Exception as error:  # noqa: BLE001 - what a program raises at a size that it does not take
        if not lacks_memory(error):
            return Recording()
    try:
        return run(bare(module), moved(twice, torch.device("meta")))
    except Exception:  # noqa: BLE001 - an operator may need data
        return Recording()


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Counts the floating-point operations of all that runs, of fused attention and LSTMs too."""
    fused, *_ = torch.backends.mkldnn.set_flags(False)  # `flags` would set TF32 too, and warn
    try:
        with (
            plain_attention(),
            FlopCounterMode(display=False, custom_mapping=_uncounted()) as counter,
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield counter
    finally:
        torch.backends.mkldnn.set_flags(fused)


def _uncounted() -> dict[Any, Any]:
    """What that counter does not know: a deformable convolution multiplies as any other."""

    def flops(x: Any, weight: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
        return int(2 * math.prod(out_shape) * math.prod(weight[1:]))

    known = getattr(torch.ops.torchvision, "deform_conv2d", None)
    return {} if known is None else {known: flops}


def bare(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose tensors have shapes only."""
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(t): t.detach().to("meta") for t in tensors})
