"""Measuring operators and networks, and choosing until a latency limit is kept."""

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import torch
from torch import fx

from ..errors import BudgetError, LatencyError
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..graph.times import OperatorTimes, fit_parts
from ..pruning.lower import lower
from ..pruning.plan import Clocked
from ..tracing.program import as_module
from ..values.nested import moved
from ..values.quantities import amount, check_count, duration
from .stopwatch import Meter, Stopwatch
from .table import LatencyTable as LatencyTable
from .table import Ratio, target_of
from .table import Target as Target

TRIES = 5  # masks that are chosen and measured, at most
REPEATS, CERTAIN = 3, 0.005  # more rounds, until the median ratio is as certain as this
Choice = TypeVar("Choice")

log = logging.getLogger("edgewise")


def measure(
    graph: Graph,
    *,
    batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    networks: int = 12,
    rounds: int = 9,
    seed: int = 0,
    meter: Meter | None = None,
) -> LatencyTable:
    """Measure a latency table of a graph on this machine.

    Of a graph of a part the part alone is timed.

    Operators are timed one by one inside the unpruned network and inside a few pruned ones, whose
    widths are cut to different degrees; between these the times are interpolated. The same
    networks are run as a whole too, in turns with the unpruned one. All of it takes about as long
    as `rounds * networks * 3` batches.

    Args:
        graph: the traced graph.
        batch: examples that go through the network together; by default those of the trace.
        threads: of torch; by default those it has.
        device: where; by default where the model is.
        networks: how many pruned networks.
        rounds: how often each is run.
        seed: of the networks' masks.
        meter: measures instead of a `Stopwatch`.

    Raises:
        LatencyError: a setting makes no sense, or the network cannot be run so.

    Examples:
        >>> table = ew.latency.measure(graph, batch=1, threads=1)
        >>> study = ew.Study(graph, objective, latency=table)
        >>> study.run(10, ew.Budget(latency="90%"))
    """
    given = {"batch": batch, "threads": threads, "networks": networks, "rounds": rounds}
    for name, value in given.items():
        if value is not None:
            check_count(name, value, error=LatencyError)
    target = target_of(
        graph, batch or graph.program.batch, threads or torch.get_num_threads(), device
    )
    meter = meter or stopwatch(graph, target, rounds)
    with graph.program.as_called():
        return _table(graph, target, meter, networks, seed)


def _table(graph: Graph, target: Target, meter: Meter, networks: int, seed: int) -> LatencyTable:
    masks = spread_masks(graph, networks, np.random.default_rng(seed))
    whole = _program(graph, graph.empty, target)[0]
    unpruned, samples, found = 0.0, [], []
    for mask in (graph.empty, *masks):
        program, vertices = _program(graph, mask, target)
        seconds = meter.networks([whole, program])
        now = float(np.median(seconds[:, 0]))
        unpruned = unpruned or now
        if mask != graph.empty:
            found.append(_compared(mask, seconds))
        times = _by_vertex(program, vertices, meter.operators(program))
        samples.append(  # as if the machine had been as fast as for the first network
            (liveness(graph, mask), {v: t * unpruned / now for v, t in times.items()})
        )
    parts = fit_parts(graph, samples)
    rows = tuple(tuple(row) for row in parts.tolist())
    return LatencyTable(graph.fingerprint, target, unpruned, rows, tuple(found))


def compare(
    graph: Graph, mask: Mask, target: Target, *, rounds: int = 21, meter: Meter | None = None
) -> Ratio:
    """How long the real pruned model takes, relative to the unpruned one, in turns with it.

    Args:
        graph: the traced graph.
        mask: what is removed.
        target: of a table.
        rounds: how often both are run.
        meter: measures instead of a `Stopwatch`.
    """
    meter = meter or stopwatch(graph, target, rounds)
    models = [_program(graph, m, target)[0] for m in (graph.empty, mask)]
    with graph.program.as_called():
        seconds = meter.networks(models)
        for _ in range(REPEATS):
            if _uncertainty(_compared(mask, seconds)) > CERTAIN:
                seconds = np.vstack([seconds, meter.networks(models)])
    return _compared(mask, seconds)


def _uncertainty(found: Ratio) -> float:
    """The standard error of the median ratio, as of a normal distribution with its quartiles."""
    low, high = found.interval
    return 1.25 * (high - low) / 1.35 / found.median / math.sqrt(found.rounds)


def settle(
    table: LatencyTable,
    graph: Graph,
    limit: float | str,
    choose: Callable[[OperatorTimes], tuple[Mask, Choice]],
    *,
    meter: Meter | None = None,
) -> tuple[Choice, Clocked]:
    """Choose a mask whose real pruned model keeps a latency limit.

    Each choice is measured. If it is slower than the limit by more than 5 %, or faster than was
    predicted by as much, the table is corrected by it and the choice made again, a few times.

    Args:
        table: of the graph.
        graph: the traced graph.
        limit: as in a budget.
        choose: a mask, and whatever belongs to it, by the predicted times.
        meter: measures instead of a `Stopwatch`.

    Returns:
        What `choose` gave, and what was measured: of the last choice that keeps the limit, or of
        the fastest if none does.

    Raises:
        BudgetError: raised by the first choice.
    """
    most = amount("latency", limit, table.unpruned)
    tried: list[tuple[Choice, Clocked]] = []
    while len(tried) < TRIES:
        times = table.times(graph)
        try:
            mask, choice = choose(times)
        except BudgetError as error:
            if not tried:
                raise
            log.warning("After %d corrections of the latency table: %s", len(tried), error)
            break
        if any(str(mask) == known.bits for _, known in tried):
            break
        found = compare(graph, mask, table.target, meter=meter)
        predicted = times.seconds(liveness(graph, mask))
        tried.append((choice, _clocked(table, found, most, predicted, len(tried) + 1)))
        if not tried[-1][1].off:
            break
        table = table.refitted(found)
    kept = [pair for pair in tried if pair[1].met]
    chosen = kept[-1] if kept else min(tried, key=lambda pair: pair[1].seconds)
    if not kept:
        log.warning(
            "The latency limit of %s is missed: the fastest of %d choices takes %s. Raise it, or "
            "offer more units (granularity).",
            duration(most), len(tried), duration(chosen[1].seconds),
        )  # fmt: skip
    return chosen


def _clocked(
    table: LatencyTable, found: Ratio, limit: float, predicted: float, tries: int
) -> Clocked:
    low, high = found.interval
    whole = table.unpruned
    return Clocked(
        bits=found.bits,
        seconds=found.median * whole,
        interval=(low * whole, high * whole),
        unpruned=whole,
        limit=limit,
        predicted=predicted,
        tries=tries,
        rounds=found.rounds,
        run=found.seconds,
        target=asdict(table.target),
    )


def _compared(mask: Mask, seconds: Any) -> Ratio:
    ratios = seconds[:, 1] / seconds[:, 0]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    before, after = np.median(seconds, axis=0).tolist()
    return Ratio(str(mask), middle, (low, high), len(ratios), (before, after))


def stopwatch(graph: Graph, target: Target, rounds: int) -> Stopwatch:
    """A stopwatch that runs the traced example, repeated to the target's batch size."""
    program = graph.program
    args, inputs = list(program.args), [v for v in graph.vertices if v.op == "input"]
    names = [n.name for n in program.module.graph.nodes if n.op == "placeholder"]
    for vertex in inputs:
        value = args[names.index(vertex.node)]
        for axis in vertex.batched:
            each = value.shape[axis] // program.batch
            rows = torch.arange(each * target.batch) % value.shape[axis]
            value = value.index_select(axis, rows.to(value.device))
        args[names.index(vertex.node)] = value
    program.traced.check(tuple(args), "The target's batch makes")
    there = moved(tuple(args), torch.device(target.device))
    return Stopwatch(there, target.threads, rounds, target.device)


def _program(graph: Graph, mask: Mask, target: Target) -> tuple[fx.GraphModule, Mapping[str, int]]:
    """The network under a mask as a program, and the vertex that a node came from."""
    lowered = lower(graph, liveness(graph, mask))
    program = as_module(lowered.attributes, lowered.graph, "Network").eval()
    home = torch.empty(0, device=target.device).device  # with its number
    if any(t.device != home for t in program.state_dict().values()):
        program = copy.deepcopy(program).to(home)  # its modules are the graph's own
    return program, lowered.vertices


def _by_vertex(
    program: fx.GraphModule, vertices: Mapping[str, int], seconds: Mapping[str, float]
) -> dict[int, float]:
    """Seconds by vertex; what is done to prepare an operator's input counts as the operator's."""
    found: dict[int, float] = {}
    waiting = 0.0
    for node in program.graph.nodes:
        waiting += seconds.get(node.name, 0.0)
        if node.name in vertices:
            index = vertices[node.name]
            found[index], waiting = found.get(index, 0.0) + waiting, 0.0
    return found


def spread_masks(graph: Graph, number: int, rng: np.random.Generator) -> list[Mask]:
    """Valid masks that cut the widths to degrees between nothing and all, other units in turns."""
    alone = [u for u in range(len(graph.units)) if u not in graph.group_of]
    found = []
    for i in range(number):
        degree = (i + 1) / (number + 1)
        mask = graph.empty
        for group in graph.nested:
            share = np.clip(degree + rng.normal() * 0.15, 0, 1)
            mask = mask.with_removed(*group[: round(share * len(group))])
        mask = mask if liveness(graph, mask).connected else graph.empty
        coarse = [u for u in alone if rng.random() < degree / (2 if graph.nested else 1)]
        for unit in coarse if i % 2 or not graph.nested else ():
            more = mask.with_removed(unit)
            mask = more if liveness(graph, more).connected else mask
        found.append(mask)
    return list(dict.fromkeys(m for m in found if m != graph.empty))
