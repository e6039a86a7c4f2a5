"""Whether calibration data look like what the network was trained on."""

import copy
from typing import Any

import torch
from torch import nn

from ..graph.graph import Graph
from ..tracing.signature import sign
from ..values.arguments import call
from .engine.around import Around
from .measurement import Measurement
from .objective import Objective

PART = 128  # examples at a time: statistics of so many differ little from those of all


def batch_norms(module: nn.Module) -> list[Any]:
    """The batch norms that keep statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in module.modules() if isinstance(m, kind) and m.track_running_stats]


def recalibrated(graph: Graph, objective: Objective) -> Measurement:
    """The unpruned network on the search split, all batch norms with calibration statistics.

    Nothing is removed, so nothing needs repair: what the network loses here, every recovered mask
    loses too. Images without the shifts, padding or normalisation of training do that.
    """
    module, whole = copy.deepcopy(graph.program.module).eval(), graph.program.whole
    batches = objective.recovery.batches
    if whole is not None:
        batches = tuple(Around(graph, objective, 0).calibration())
    for norm in batch_norms(module):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for inputs in batches:
            for part in _parts(inputs):
                call(module, part)
    if whole is None:
        return objective.score(module, "search")
    sign(module.graph, graph.program.traced)
    module.recompile()
    return objective.score(whole.around(module), "search")


def _parts(inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """A batch in even parts of at most PART examples, where all its tensors have as many."""
    sizes = {len(v) if isinstance(v, torch.Tensor) and v.ndim else 0 for v in inputs}
    if len(sizes) != 1 or 0 in sizes:
        return [inputs]
    count = -(-sizes.pop() // PART)
    return list(zip(*(v.tensor_split(count) for v in inputs), strict=True))
