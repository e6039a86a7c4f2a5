"""Measuring many masks: only live operators run, and masks share what they have in common.

A node of a lowered program is identified by what it computes: its operator, its weights, and the
identities of its inputs. Masks that agree on everything upstream of an operator therefore share
its value, whatever the shape of the graph. Masks are visited in an order in which neighbours
agree on as much of the beginning of the network as possible, and a value is kept exactly as long
as a later mask still reads it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from .errors import ObjectiveError
from .graph import Graph, Mask
from .liveness import liveness
from .lower import Lowered, lower
from .objective import Measurement, Objective
from .program import copies_of
from .records import Evaluation, Split, Status

Key = int
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Outcome:
    """One mask measured: the record, the loss of every example, and the recovered tensors."""

    evaluation: Evaluation
    each: torch.Tensor | None = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class _Program:
    """A lowered program with the identity of every node's value."""

    mask: Mask
    lowered: Lowered
    keys: dict[fx.Node, Key] = field(default_factory=dict)
    recover: set[fx.Node] = field(default_factory=set)

    @property
    def nodes(self) -> list[fx.Node]:
        return list(self.keys)

    @property
    def placeholders(self) -> list[fx.Node]:
        return [node for node in self.keys if node.op == "placeholder"]

    @property
    def output(self) -> fx.Node:
        return next(reversed(self.keys))

    def missing(self, goals: Sequence[fx.Node], known: Container[Key]) -> list[fx.Node]:
        """The nodes to run for these goals, in order, when some values are known."""
        wanted = set(goals)
        queue = list(goals)
        while queue:
            for source in queue.pop().all_input_nodes:
                if self.keys[source] not in known and source not in wanted:
                    wanted.add(source)
                    queue.append(source)
        return [node for node in self.keys if node in wanted]


@dataclass
class _Cache:
    """Values by identity, each dropped after the last mask that reads it."""

    values: dict[Key, Any] = field(default_factory=dict)
    readers: Counter[Key] = field(default_factory=Counter)

    def release(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.readers[key] -= 1
            if self.readers[key] <= 0:
                self.values.pop(key, None)


class Engine:
    """Measures masks of one graph with one objective.

    Args:
        graph: the traced graph; its weights are used as they are, in eval mode.
        objective: what to measure.
        chunk: how many masks share their computations at a time when the data are several batches.
    """

    def __init__(self, graph: Graph, objective: Objective, chunk: int = 32) -> None:
        self.graph, self.objective, self.chunk = graph, objective, chunk
        self.cut: dict[Any, Any] = {}
        self.numbers: dict[Any, Key] = {}
        graph.program.module.eval()
        self._check_inputs()

    def _check_inputs(self) -> None:
        """Raise ObjectiveError unless the data give as many inputs as the traced model takes."""
        nodes = self.graph.program.module.graph.find_nodes(op="placeholder")
        names = [str(node.target) for node in nodes]
        batches = [inputs for inputs, _ in self.objective.splits["search"][:1]]
        for inputs in [*batches, *self.objective.recovery.batches[:1]]:
            if len(inputs) != len(names):
                raise ObjectiveError(
                    f"A batch gives {len(inputs)} inputs, the traced model takes {len(names)} "
                    f"({', '.join(names)}). Trace it with the inputs that the data give."
                )

    def evaluate(
        self, masks: Sequence[Mask], split: Split = "search", *, tensors: bool = False
    ) -> Iterator[Outcome]:
        """Measure masks; failures are outcomes too.

        Args:
            masks: any masks of the graph.
            split: the data to use.
            tensors: also return recovered tensors.

        Yields:
            One outcome a mask, in an order of the engine's choice.
        """
        order = sorted(masks, key=lambda mask: mask.bits)
        for begin in range(0, len(order), self.chunk):
            yield from self._evaluate_chunk(order[begin : begin + self.chunk], split, tensors)
            self.numbers.clear()
            self.cut.clear()

    def _evaluate_chunk(
        self, masks: Sequence[Mask], split: Split, tensors: bool
    ) -> Iterator[Outcome]:
        batches = [inputs for inputs, _ in self.objective.splits[split]]
        programs, failed = self._programs(masks, split)
        yield from failed
        run = _Run(programs, self.objective.recovery.batches)
        outputs: list[list[Any]] = [[] for _ in programs]
        seconds = [0.0 for _ in programs]
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            for position, value, spent in run.batch(batch):
                seconds[position] += spent
                outputs[position].append(value)
                if last:
                    yield self._outcome(
                        programs[position], outputs[position], split, seconds[position],
                        run.recovered(programs[position]) if tensors else {},
                    )  # fmt: skip
                    outputs[position] = []

    def _programs(
        self, masks: Sequence[Mask], split: Split
    ) -> tuple[list[_Program], list[Outcome]]:
        programs, failed = [], []
        for mask in masks:
            try:
                programs.append(self._program(mask))
            except Exception as error:  # noqa: BLE001 - one bad mask must not end the study
                failed.append(self._failure(mask, split, error, 0.0))
        return programs, failed

    def _program(self, mask: Mask) -> _Program:
        alive = liveness(self.graph, mask).require_connected()
        lowered = lower(self.graph, alive, self.cut)
        program = _Program(mask, lowered)
        touched: set[fx.Node] = set()
        once = Counter(n.target for n in lowered.graph.nodes if n.op == "call_module")
        for node in lowered.graph.nodes:
            if self._changed(node, lowered, alive, touched):
                touched.add(node)
                if self._is_batch_norm(node, lowered) and once[node.target] == 1:
                    program.recover.add(node)
            program.keys[node] = self._key(node, program)
        return program

    def _changed(self, node: fx.Node, lowered: Lowered, alive: Any, touched: set[fx.Node]) -> bool:
        """Whether a removal lies upstream of a node."""
        if any(source in touched for source in node.all_input_nodes):
            return True
        index = lowered.vertices.get(node.name)
        if index is None:
            return False
        sources = [self.graph.edges[e].source for e in self.graph.inputs[index]]
        whole = all(alive.wants[e] is not None for e in self.graph.inputs[index])
        skipped = any(s in alive.bypassed or s in alive.forwarded for s in sources)
        return (
            not whole
            or skipped
            or any(not w.full for e in self.graph.inputs[index] if (w := alive.wants[e]))
        )

    def _is_batch_norm(self, node: fx.Node, lowered: Lowered) -> bool:
        if self.objective.recovery.kind != "batchnorm" or node.op != "call_module":
            return False
        module = lowered.attributes[str(node.target)]
        return isinstance(module, _BATCH_NORMS) and module.running_mean is not None

    def _key(self, node: fx.Node, program: _Program) -> Key:
        """A number that stands for what the node computes."""

        def known(value: Any) -> Any:
            if isinstance(value, slice):
                return ("slice", *map(known, (value.start, value.stop, value.step)))
            return ("node", program.keys[value]) if isinstance(value, fx.Node) else repr(value)

        arguments = pytree.tree_map(known, (list(node.args), dict(node.kwargs)))
        target: Any = node.target
        if node.op in ("call_module", "get_attr"):
            target = program.lowered.attributes[str(node.target)]
        same = target if isinstance(target, str) else id(target)
        what = (node.op, same, repr(arguments), node in program.recover)
        return self.numbers.setdefault(what, len(self.numbers))

    def _outcome(
        self, program: _Program, outputs: Sequence[Any], split: Split, seconds: float,
        tensors: Mapping[str, torch.Tensor],
    ) -> Outcome:  # fmt: skip
        broken = next((value for value in outputs if isinstance(value, Exception)), None)
        if broken is not None:
            return self._failure(program.mask, split, broken, seconds)
        try:
            with torch.no_grad():  # copies, since the loss may write and masks may share outputs
                own = copies_of(list(outputs))
                measured = self.objective.measure(own, split)
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            return self._failure(program.mask, split, error, seconds)
        return Outcome(self._record(program.mask, split, measured, seconds), measured.each, tensors)

    def _record(
        self, mask: Mask, split: Split, measured: Measurement, seconds: float
    ) -> Evaluation:
        finite = measured.loss - measured.loss == 0
        return Evaluation(
            mask=str(mask),
            split=split,
            loss=measured.loss if finite else None,
            metrics=dict(measured.metrics),
            samples=self.objective.samples(split),
            seconds=seconds,
            status="ok" if finite else "nan",
            error=None if finite else f"The loss is {measured.loss}.",
        )

    def _failure(self, mask: Mask, split: Split, error: Exception, seconds: float) -> Outcome:
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            "not enough memory" in str(error) or "out of memory" in str(error)
        )
        status: Status = "out of memory" if memory else "failed"
        text = (
            str(error) if isinstance(error, ObjectiveError) else f"{type(error).__name__}: {error}"
        )
        record = Evaluation(str(mask), split, None, {}, 0, seconds, status, text[:2000])
        return Outcome(record)


class _Run:
    """Executes programs on one batch after another, sharing values between them."""

    def __init__(
        self, programs: Sequence[_Program], calibration: Sequence[tuple[Any, ...]]
    ) -> None:
        self.programs = programs
        self.reads = self._plan()
        self.statistics: dict[Key, tuple[torch.Tensor, torch.Tensor]] = {}
        recovers = any(program.recover for program in programs)
        self.calibration = _join(calibration) if recovers else None

    def _plan(self) -> list[set[Key]]:
        """For every program the values it reads, if what earlier programs computed is kept."""
        seen: set[Key] = set()
        reads = []
        for program in self.programs:
            run = program.missing([program.output], seen)
            reads.append({program.keys[s] for node in run for s in node.all_input_nodes})
            seen.update(program.keys[node] for node in run)
        return reads

    def batch(self, inputs: tuple[Any, ...]) -> Iterator[tuple[int, Any, float]]:
        """(program, its output or the exception it raised, seconds) for one batch."""
        readers = Counter(key for keys in self.reads for key in keys)
        evaluated, calibrated = _Cache({}, readers.copy()), _Cache({}, readers.copy())
        for position, program in enumerate(self.programs):
            begin = time.perf_counter()
            value: Any
            try:
                with torch.no_grad():
                    self._calibrate(program, position, calibrated)
                    goals = [program.output]
                    value = self._execute(program, position, goals, inputs, evaluated)
            except Exception as error:  # noqa: BLE001 - recorded with its mask
                value = error
            evaluated.release(self.reads[position])
            calibrated.release(self.reads[position])
            yield position, value, time.perf_counter() - begin
        self.calibration = None

    def _calibrate(self, program: _Program, position: int, cache: _Cache) -> None:
        """Run the calibration batch up to the last batch norm without statistics."""
        goals = [n for n in program.nodes if n in program.recover]
        goals = [n for n in goals if program.keys[n] not in self.statistics]
        if goals and self.calibration is not None:
            self._execute(program, position, goals, self.calibration, cache)

    def _execute(
        self, program: _Program, position: int, goals: Sequence[fx.Node],
        inputs: tuple[Any, ...], cache: _Cache,
    ) -> Any:  # fmt: skip
        """Run what is missing for the goals; returns the value of the last."""
        run = program.missing(goals, cache.values.keys())
        uses = Counter(program.keys[s] for node in run for s in node.all_input_nodes)
        arguments = dict(zip(program.placeholders, inputs, strict=False))
        local: dict[Key, Any] = {}
        value: Any = None
        for node in run:
            key = program.keys[node]
            value = arguments.get(node) if node.op == "placeholder" else (
                self._node(program, node, local, cache)
            )  # fmt: skip
            local[key] = value
            if cache.readers[key] > (key in self.reads[position]):
                cache.values[key] = value
            for source in node.all_input_nodes:
                used = program.keys[source]
                uses[used] -= 1
                if uses[used] == 0:
                    local.pop(used, None)
        return value

    def _node(self, program: _Program, node: fx.Node, local: dict[Key, Any], cache: _Cache) -> Any:
        def read(n: fx.Node) -> Any:
            key = program.keys[n]
            return local[key] if key in local else cache.values[key]

        args: Any
        kwargs: Any
        args, kwargs = fx.map_arg((node.args, node.kwargs), read)
        if node.op == "output":
            return args[0]
        if node.op == "get_attr":
            return program.lowered.attributes[str(node.target)]
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        module = program.lowered.attributes[str(node.target)]
        if node in program.recover:
            return self._batch_norm(module, program.keys[node], args[0])
        return module(*args, **kwargs)

    def _batch_norm(self, module: Any, key: Key, x: torch.Tensor) -> torch.Tensor:
        """Normalise with the statistics of the calibration batch, which comes first."""
        if key not in self.statistics:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            self.statistics[key] = (x.mean(axes), x.var(axes, unbiased=True))
        mean, var = self.statistics[key]
        return nn.functional.batch_norm(
            x, mean, var, module.weight, module.bias, False, 0.0, module.eps
        )

    def recovered(self, program: _Program) -> dict[str, torch.Tensor]:
        """The recovered tensors of a program, by the names they have in the pruned model."""
        found: dict[str, torch.Tensor] = {}
        for node in program.recover:
            mean, var = self.statistics[program.keys[node]]
            found[f"{node.target}.running_mean"] = mean.clone()
            found[f"{node.target}.running_var"] = var.clone()
        return found


def _join(batches: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """All calibration batches as one."""
    if len(batches) == 1:
        return batches[0]

    def join(*parts: Any) -> Any:
        return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else parts[0]

    joined: tuple[Any, ...] = pytree.tree_map(join, *batches)
    return joined
