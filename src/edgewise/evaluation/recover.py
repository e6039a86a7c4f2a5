"""Recovery of one finished mask, and what the recovery of a mask costs, told in advance."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import ObjectiveError
from ..graph.graph import Graph, Mask
from ..pruning.plan import Plan
from ..pruning.prune import Form, prune, resolve
from ..values.nested import batch_size
from ..values.quantities import duration
from .calibration import batch_norms
from .engine.least_squares import MIXED, ONCE, rows_for
from .engine.pieces import cut
from .engine.refit_goals import layers_to_fit
from .evaluator import Engine
from .objective import FEWEST, Objective, Recovery, RecoveryKind

SLOW, FEW = 10.0, 128  # seconds a mask that are much for a search; examples that are few
ROOTS, SLOWER = 4, 2.5  # factorisations of a fit, and how much slower than products they are
TRIES, LONG, SIDE = 3, 1.0, 512  # of the clock, within seconds; of the matrices that it times


def recover(
    graph: Graph,
    plan: Plan | Mask,
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
    tensors = _engine(graph, Recovery(kind, calibration), once=True).recovered(mask)
    return prune(graph, plan, form=form, tensors=tensors)


def _engine(graph: Graph, recovery: Recovery, once: bool) -> Engine:
    """One that only recovers."""
    if graph.program.whole is None:
        recovery = recovery.placed(graph.program.names)
    data = [(inputs, None) for inputs in recovery.batches[:1]]
    objective = Objective(data, lambda out, _: torch.zeros(()), recovery=recovery)
    return Engine(graph, objective, once=once)


@dataclass(frozen=True)
class Estimate:
    """What linear recovery adds to the evaluation of a mask, at most.

    Args:
        seconds: on this machine, as busy as it is.
        bytes: beyond what the network and the data take.
        layers: that can be fitted.
        fewer: those of them that are fitted to fewer rows than the calibration data have, since
            they have many inputs.
        cheaper: what to write for less, where it is much for a search.
    """

    seconds: float
    bytes: int
    layers: int
    fewer: int
    cheaper: str = ""

    def __str__(self) -> str:
        few = f", {self.fewer} of them to a part of the data" if self.fewer else ""
        return (
            f"Linear recovery of a mask takes up to {duration(self.seconds)} and "
            f"{self.bytes / 2**20:.0f} MiB: it fits up to {self.layers} layers{few}."
            f"{self.cheaper and f' Cheaper: {self.cheaper}.'}"
        )


def estimate(graph: Graph, recovery: Recovery, once: bool = False) -> Estimate:
    """What linear recovery will cost, as if every layer were behind a removal and kept its size.

    Args:
        graph: the traced graph of the model.
        recovery: whose calibration data count.
        once: whether it is that of a finished mask, which may take longer.

    Examples:
        >>> from edgewise.evaluation.recover import estimate
        >>> recovery = ew.Recovery("linear", [inputs for inputs, _ in batches])
        >>> estimate(graph, recovery).layers > 0
        True
    """
    module: Any = graph.program.module
    engine, times = _engine(graph, recovery, once), ONCE if once else 1
    examples = sum(batch_size(inputs) for inputs in engine.calibration)
    largest = max((math.prod(v.shape) * v.itemsize for v in graph.vertices if v.shape), default=0)
    some = cut(engine.calibration[0], max(batch_size(engine.calibration[0]) // 8, 1))[0]
    with torch.inference_mode():
        example = _timed(lambda: module(*some)) / batch_size(some)
        a = torch.rand(SIDE, SIDE, device=graph.program.device)
        product = _timed(lambda: a @ a) / SIDE**3

    def seconds(count: int) -> float:
        """Both networks run on the data, and layers are fitted."""
        return 2 * count * example + product * sum(
            _work(*layer) for layer in _fits(graph, count, times)
        )

    fits, whole = list(_fits(graph, examples, times)), seconds(examples)
    held = max((_held(*layer[:3]) * layer[4] for layer in fits), default=0)
    fewer = sum(rows < there for rows, _, _, there, _ in fits)
    cheaper = []
    if whole > SLOW and not once:
        few = min(FEW, max(examples // 2, FEWEST))
        if few < examples:
            less = f"{few} of the {examples} calibration examples, up to {duration(seconds(few))}"
            cheaper.append(f"{less} (in a job, fewer `rows` in [calibration])")
        if batch_norms(module):
            cheaper.append('ew.Recovery("batchnorm", ...) (in a job, recovery = "batchnorm")')
        else:
            later = "ew.Recovery() while searching, then ew.recover(graph, plan, inputs) once"
            cheaper.append(f'{later} (in a job, recovery = "linear" in [result] instead)')
    return Estimate(
        whole, round(held + 4 * examples * largest), len(fits), fewer, "; or ".join(cheaper)
    )


def _fits(graph: Graph, examples: int, times: int) -> Iterator[tuple[float, int, int, float, int]]:
    """Of each layer the rows of its fit, its inputs and channels, the rows there are, and bytes."""
    module: Any = graph.program.module
    for index in layers_to_fit(graph):
        vertex = graph.vertices[index]
        weight = module.get_submodule(vertex.module).weight
        channels, inputs = len(weight), weight[0].numel()
        there = examples * math.prod(vertex.shape or ()) / channels
        yield min(rows_for(inputs, times), there), inputs, channels, there, weight.element_size()


def _work(rows: float, inputs: int, channels: int, *_: float) -> float:
    """Multiply-accumulates of a fit, as many as take its time."""
    side, mixed, few = min(rows, inputs), min(channels, MIXED), rows < inputs
    work = rows * inputs * (side / 2 + channels)  # sums over rows
    work += 2 * side**2 * (channels + 3 * mixed) + (2 if few else ROOTS) * SLOWER * side**3 / 6
    return work + few * rows * inputs * channels  # the way back


def _held(rows: float, inputs: int, channels: int) -> float:
    side = min(rows, inputs)
    return (ROOTS + 3) * side**2 + 3 * rows * (inputs if side < inputs else channels)


def _timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes; the least of some, if it takes few."""
    times: list[float] = []
    while len(times) < TRIES and sum(times) < LONG:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)
