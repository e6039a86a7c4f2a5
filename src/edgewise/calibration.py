"""Whether calibration data look like what the network was trained on."""

from __future__ import annotations

import copy

import torch
from torch import nn

from .graph import Graph
from .objective import Measurement, Objective

_Norm = nn.modules.batchnorm._BatchNorm


def recalibrated(graph: Graph, objective: Objective) -> Measurement:
    """The unpruned network on the search split, all batch norms with calibration statistics.

    Nothing is removed, so nothing needs repair: what the network loses here, every recovered mask
    loses too. Images without the shifts, padding or normalisation of training do that.
    """
    module = copy.deepcopy(graph.program.module).eval()
    for norm in (m for m in module.modules() if isinstance(m, _Norm) and m.track_running_stats):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for inputs in objective.recovery.batches:
            module(*inputs)
        module.eval()
        outputs = [module(*inputs) for inputs, _ in objective.splits["search"]]
        return objective.measure(outputs, "search")
