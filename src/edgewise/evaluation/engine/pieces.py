"""Batches as pieces that fit the cache of a processor, with the memory layout it likes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ...graph.graph import Graph
from ...pruning.verify import TOLERANCE, relative_difference
from ...tracing.agreement import drawn
from ...values.nested import batch_size, copies_of, leaves_of, moved
from ...values.precision import full_precision
from .options import EngineOptions

Inputs = tuple[Any, ...]
_BYTES, _LEAST = 4 * 2**20, 16  # of the largest activation in a piece; examples in a piece


@dataclass(frozen=True)
class Pieces:
    """How batches are cut.

    Args:
        examples: in a piece at most; None leaves batches whole.
        channels_last: whether images lie in memory with their channels last.
        device: where they lie.
    """

    examples: int | None
    channels_last: bool
    device: torch.device

    def of(self, batches: Iterable[Inputs]) -> list[tuple[int, Inputs]]:
        """(number of the batch, inputs) of all pieces, pieces of a batch as equal as can be."""
        found = []
        for number, inputs in enumerate(batches):
            size = batch_size(inputs)
            count = 1 if self.examples is None else math.ceil(size / self.examples)
            found += [(number, part) for part in cut(inputs, max(count, 1))]
        return found

    def laid_out(self, inputs: Inputs) -> Inputs:
        """The inputs where these pieces lie, in their memory layout."""
        inputs = moved(inputs, self.device)
        if not self.channels_last:
            return inputs
        last = torch.channels_last
        found: Inputs = pytree.tree_map_only(
            torch.Tensor, lambda x: x.contiguous(memory_format=last) if x.ndim == 4 else x, inputs
        )
        return found


def choose(graph: Graph, options: EngineOptions, batches: Sequence[Inputs]) -> Pieces:
    """How to cut and lay out batches, from the network, one of the batches and the options.

    What a part gets stays whole, since what is behind it gets all of it.

    No clock is asked, so that every process that measures a mask gets the same bits.
    """
    module: nn.Module = graph.program.module
    local, device = on_processor(graph), graph.program.device
    images = local and any(isinstance(part, nn.Conv2d) for part in module.modules())
    last = images if options.channels_last is None else options.channels_last
    if graph.program.takes or graph.program.whole is not None:
        return Pieces(None, last, device)
    fits = _examples(graph) if local else batch_size(batches[0])  # there memory is what is short
    several = next((batch for batch in batches if batch_size(batch) > 1), batches[0])
    alone = treats_examples_alone(module, moved(several, device))
    return Pieces(options.piece or fits if alone else None, last, device)


def on_processor(graph: Graph) -> bool:
    """Whether the network and its inputs are in the memory of the processor."""
    weights = graph.program.module.parameters()
    return all(
        device.type == "cpu" for device in (graph.program.device, *(w.device for w in weights))
    )


def _examples(graph: Graph) -> int:
    """Examples whose largest activation has some megabytes."""
    sizes = [math.prod(v.shape) * v.itemsize for v in graph.vertices if v.shape is not None]
    return max(_BYTES // max(*sizes, 1), _LEAST)


def treats_examples_alone(module: nn.Module, inputs: Inputs) -> bool:
    """Whether a network gives for a few examples together what it gives for each half of them.

    The first examples of a batch may be all alike, so that others are drawn beside them.
    """
    if batch_size(inputs) < 2:
        return True  # nothing to cut
    few = cut(inputs, max(batch_size(inputs) // 4, 1))[0]
    size = batch_size(few)
    return _halves_agree(module, few) is True and (
        _halves_agree(module, drawn(few, size, size)) is not False
    )


def _halves_agree(module: nn.Module, few: Inputs) -> bool | None:
    """Whether halves of a batch give what the whole gives; None where the network does not run."""
    try:
        with torch.no_grad(), full_precision():
            whole = module(*copies_of(few))
            parts = join([module(*copies_of(half)) for half in cut(few, 2)])
    except Exception:  # noqa: BLE001 - a network that takes one batch size may raise anything
        return None
    pairs = list(zip(leaves_of(whole), leaves_of(parts), strict=False))
    return bool(pairs) and all(_equal(a, b) for a, b in pairs)


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor):
        return bool(a == b)
    return relative_difference(a, b) <= TOLERANCE.get(a.dtype, 0.0)


def cut(inputs: Inputs, count: int) -> list[Inputs]:
    """Inputs as parts of almost equal numbers of examples."""
    size = batch_size(inputs)
    ends = [size * i // count for i in range(count + 1)]

    def part(value: Any, begin: int, end: int) -> Any:
        batched = isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == size
        return value[begin:end] if batched else value

    return [
        tuple(pytree.tree_map(lambda v, b=b, e=e: part(v, b, e), inputs))
        for b, e in pairwise(ends)
        if e > b or count == 1
    ]


def join(outputs: Sequence[Any]) -> Any:
    """The outputs of parts as those of the whole."""
    if len(outputs) == 1:
        return outputs[0]

    def joined(*parts: Any) -> Any:
        return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else parts[0]

    return pytree.tree_map(joined, *outputs)
