"""Recovery of one finished mask, and what the recovery of a mask costs, told in advance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import ObjectiveError
from ..graph.graph import Graph, Mask
from ..pruning.prune import Chosen, Form, prune, resolve
from ..values.nested import batch_size
from ..values.quantities import duration
from .engine.least_squares import rows_for
from .engine.pieces import cut
from .engine.refit_goals import layers_to_fit
from .evaluator import Engine
from .objective import Objective, Recovery, RecoveryKind

ROOTS, SLOW = 5, 2.5  # factorisations of a fit, and how much slower than products they are
TRIES, SIDE = 3, 512  # of the clock; of the matrices whose product it times


def recover(
    graph: Graph,
    plan: Chosen | Mask,
    calibration: Iterable[Any],
    *,
    kind: RecoveryKind = "linear",
    form: Form = "program",
) -> nn.Module:
    """A pruned model that gets its recovery once, at the end, whatever chose what was removed.

    Args:
        graph: the traced graph of the model.
        plan: a plan, or a bare mask. What a plan recovered is replaced.
        calibration: inputs, or (inputs, targets), as `ew.Recovery` takes them.
        kind: "linear" or "batchnorm".
        form: as `ew.prune` takes it.

    Returns:
        What `ew.prune` returns, with recovered weights.

    Raises:
        ObjectiveError: the calibration data do not fit the model, or are too few.
        PlanError, MaskError, DisconnectedError, FormError: as in `ew.prune`.

    Examples:
        >>> small = ew.recover(graph, graph.mask([0]), [inputs for inputs, _ in batches])
        >>> bool(torch.isfinite(small(x)).all())
        True
    """
    mask, _ = resolve(graph, plan)
    if kind == "none":
        raise ObjectiveError('Recovery "none" recovers nothing: ew.prune gives the model as it is.')
    tensors = _engine(graph, Recovery(kind, calibration)).recovered(mask)
    return prune(graph, plan, form=form, tensors=tensors)


def _engine(graph: Graph, recovery: Recovery) -> Engine:
    """One that only recovers."""
    if graph.program.whole is None:
        recovery = recovery.placed(graph.program.names)
    data = [(inputs, None) for inputs in recovery.batches[:1]]
    return Engine(graph, Objective(data, lambda out, _: torch.zeros(()), recovery=recovery))


@dataclass(frozen=True)
class Estimate:
    """What linear recovery adds to the evaluation of a mask, at most.

    Args:
        seconds: on this machine, as busy as it is.
        bytes: beyond what the network and the data take.
        layers: that can be fitted.
        fewer: those of them that are fitted to fewer rows than the calibration data have, since
            they have many inputs.
    """

    seconds: float
    bytes: int
    layers: int
    fewer: int

    def __str__(self) -> str:
        few = f", {self.fewer} of them to a part of the data" if self.fewer else ""
        return (
            f"Linear recovery of a mask takes up to {duration(self.seconds)} and "
            f"{self.bytes / 2**20:.0f} MiB: it fits up to {self.layers} layers{few}."
        )


def estimate(graph: Graph, recovery: Recovery) -> Estimate:
    """What linear recovery will cost, as if every layer were behind a removal and kept its size.

    Args:
        graph: the traced graph of the model.
        recovery: whose calibration data count.

    Examples:
        >>> from edgewise.evaluation.recover import estimate
        >>> recovery = ew.Recovery("linear", [inputs for inputs, _ in batches])
        >>> estimate(graph, recovery).layers > 0
        True
    """
    module: Any = graph.program.module
    engine = _engine(graph, recovery)
    examples = sum(batch_size(inputs) for inputs in engine.calibration)
    work, held, fewer, found = 0.0, 0.0, 0, layers_to_fit(graph)
    for index in found:
        vertex = graph.vertices[index]
        weight = module.get_submodule(vertex.module).weight
        channels, inputs = len(weight), weight[0].numel()
        all_rows = examples * math.prod(vertex.shape or ()) / channels
        rows = min(rows_for(inputs), all_rows)
        side = min(rows, inputs)
        fewer += rows < all_rows
        work += rows * inputs * (side / 2 + 2 * channels) + ROOTS * side**2 * channels
        work += ROOTS * SLOW * side**3 / 6
        mine = (ROOTS + 3) * side**2 + 3 * rows * (inputs if side < inputs else channels)
        held = max(held, mine * weight.element_size())
    largest = max((math.prod(v.shape) * v.itemsize for v in graph.vertices if v.shape), default=0)
    some = cut(engine.calibration[0], max(batch_size(engine.calibration[0]) // 8, 1))[0]
    with torch.inference_mode():
        passes = 2 * examples / batch_size(some) * _timed(lambda: module(*some))
        a = torch.rand(SIDE, SIDE, device=graph.program.device)
        seconds = passes + work / SIDE**3 * _timed(lambda: a @ a)
    return Estimate(seconds, round(held + 4 * examples * largest), len(found), fewer)


def _timed(call: Callable[[], Any]) -> float:
    def once() -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return min(once() for _ in range(TRIES))
