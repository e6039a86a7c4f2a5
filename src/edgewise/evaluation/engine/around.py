"""The model around a part: what is before it runs once a batch, what is behind it once a mask.

What is behind is run by the model's own code, in which the part is replaced by what a mask gives.
That code runs from its beginning; modules that it calls before the part give what they gave the
first time, since nothing of a mask has reached them yet.
"""

import copy
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ...errors import ObjectiveError
from ...graph.graph import Graph
from ...pruning.masked import unlocked
from ...tracing.program import evaluating
from ...tracing.signature import Traced
from ...tracing.whole import Whole
from ...values.nested import copies_of, leaves_of, moved, tensors_of
from ..loaders import Batch
from ..objective import Objective
from ..records import Split
from .cache import size_of
from .run import Run, wait_for

Inputs = tuple[Any, ...]
Answer = Callable[[int, Inputs], Any]
Value = tuple[int, Any, float]  # of a program: its position, what it gives or raises, seconds


@dataclass(frozen=True)
class Received:
    """What the first part that a model calls gets from a batch, and what led to it.

    Args:
        part: its number.
        inputs: of its program.
        before: what modules gave before, by their own number and that of the call.
    """

    part: int
    inputs: Inputs
    before: dict[tuple[int, int], Any]


class _Reached(BaseException):  # no Exception: the model's own code must not catch it
    """A part is called, which is all that was to be known."""


class Around:
    """The model around the parts of a graph.

    Args:
        graph: of parts.
        objective: what to measure.
        limit: bytes that what is before may take, for all batches.
    """

    def __init__(self, graph: Graph, objective: Objective, limit: int) -> None:
        self.program, self.objective, self.left = graph.program, objective, limit
        whole: Whole = graph.program.whole
        self.whole = whole
        self.traced = [self._own(graph.program.traced, i) for i in range(len(whole.parts))]
        self.model = whole.calling(self._called).eval()
        self._before = _Before(self.model, whole)
        self._kept: dict[tuple[Split, int], Received] = {}
        self._answer: Answer = _nothing

    def _own(self, traced: Traced, number: int) -> Traced:
        names = self.whole.parts[number].names
        return traced.only({name: name for name in names}, self.whole.given)

    def _called(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._before.end()
        named = self.whole.named(number, args, kwargs)
        return self._answer(number, self.traced[number].inputs((), named))

    def _run(self, batch: Batch, number: int, answer: Answer) -> Any:
        self._answer = answer
        if self.objective.run is None:  # the model around the part may have no weights
            batch = moved(batch[0], self.program.device), batch[1]
        try:
            with evaluating(self.model), torch.no_grad():
                return self.objective.outputs(self.model, batch, number)
        finally:
            self._before.end()

    def received(self, split: Split, number: int) -> Received:
        """What the first part gets from a batch of a split.

        Raises:
            ObjectiveError: the model calls no part.
        """
        if (split, number) in self._kept:
            return self._kept[split, number]
        found: list[tuple[int, Inputs]] = []

        def reach(part: int, inputs: Inputs) -> Any:
            found.append((part, copies_of(inputs)))
            raise _Reached

        before = self._before.record()
        try:
            self._run(*self._batch(split, number), reach)
        except _Reached:
            received = Received(*found[0], before)
        else:
            paths = ", ".join(self.whole.paths)
            raise ObjectiveError(f"{self.whole.name} does not call {paths} on batch {number}.")
        size = size_of((received.inputs, self._before.tensors))
        if size <= self.left:
            self.left -= size
            self._kept[split, number] = received
        return received

    def values(
        self, run: Run, split: Split, number: int, laid_out: Callable[[Inputs], Inputs]
    ) -> Iterator[Value]:
        """(program, what the whole model gives with it or raises, seconds) for a batch of a split.

        Args:
            run: of the parts under some masks.
            split: of the data.
            number: of the batch.
            laid_out: inputs as the engine wants them.
        """
        try:
            received = self.received(split, number)
        except Exception as error:  # noqa: BLE001 - the user's model may raise anything
            run.failed |= dict.fromkeys(range(len(run.programs)), error)
            received = Received(0, (), {})

        def again(position: int, part: int, inputs: Inputs) -> Any:
            self._guard(run.programs[position].guard, part, inputs)
            with self.whole.as_called():
                return run.again(position, laid_out(inputs), part)

        pieces = run.piece(laid_out(received.inputs), received.part)
        for position, value, seconds in self._under_conditions(pieces):
            begin = time.perf_counter()
            if not isinstance(value, Exception):
                try:
                    self._guard(run.programs[position].guard, received.part, received.inputs)
                    other = partial(again, position)
                    value = self._finished(split, number, received, value, other)
                    wait_for(received.inputs)
                except Exception as error:  # noqa: BLE001 - recorded with its mask
                    value = run.failed[position] = error
            yield position, value, seconds + time.perf_counter() - begin

    def _under_conditions(self, values: Iterator[Value]) -> Iterator[Value]:
        while True:
            with self.whole.as_called():
                value = next(values, None)
            if value is None:
                return
            yield value

    def _guard(self, guard: Traced | None, part: int, inputs: Inputs) -> None:
        """Raise ObjectiveError for sizes that a mask does not take."""
        if guard is not None:
            self._own(guard, part).check(inputs, f"{self.whole.paths[part]} under this mask got")

    def _finished(
        self, split: Split, number: int, received: Received, value: Any, again: Answer
    ) -> Any:
        """What the whole model gives for a batch.

        Args:
            split: of the batch.
            number: of the batch.
            received: from it.
            value: what a mask gives for that.
            again: what it gives for other inputs of a part.
        """

        def answer(part: int, inputs: Inputs) -> Any:
            known = part == received.part and _equal(inputs, received.inputs)
            found = unlocked(value if known else again(part, inputs))
            # the model may write into it, and its code expects the usual layout
            own = partial(torch.clone, memory_format=torch.contiguous_format)
            return pytree.tree_map_only(torch.Tensor, own, found)

        self._before.replay(received.before)
        return self._run(*self._batch(split, number), answer)

    def _batch(self, split: Split, number: int) -> tuple[Batch, int]:
        """A batch of a split or size, and its number in the whole split."""
        whole, batch = self.objective.numbered(split)[number]
        return batch, whole

    def calibration(self) -> Iterator[Inputs]:
        """What the parts of the unpruned model get from the calibration data, call by call."""
        parts = self.whole.parts
        for number, batch in enumerate(
            self.objective.recovery.pairs(self.objective.run is not None)
        ):
            calls: list[list[Inputs]] = [[] for _ in parts]

            def answer(part: int, inputs: Inputs, calls: list[list[Inputs]] = calls) -> Any:
                calls[part].append(copies_of(inputs))
                filled = {**self.whole.given, **dict(zip(self._names(part), inputs, strict=True))}
                given = tuple(filled[name] for name in self.program.names)
                with self.whole.as_called():
                    found = self.program.module(*given)
                return found if len(parts) == 1 else found[part]

            self._run(batch, number, answer)
            for called in zip(*calls, strict=False):
                yield tuple(value for inputs in called for value in inputs)

    def _names(self, part: int) -> list[str]:
        return [name for name in self.program.names if name in self.whole.parts[part].names]


def _nothing(part: int, inputs: Inputs) -> Any:
    raise AssertionError("the model runs for somebody who answers")


def _equal(left: Any, right: Any) -> bool:
    pairs = list(zip(leaves_of(left), leaves_of(right), strict=True))
    return all(
        a.shape == b.shape and torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor)
    )


class _Before:
    """What modules give that a model calls before its first part.

    The outermost ones count. Left out are those that draw random numbers, write into what they get,
    change their buffers or attributes, give memory of what they get, or give what cannot be copied.
    """

    def __init__(self, model: nn.Module, whole: Whole) -> None:
        ends = [f"{path}." for path in whole.paths]
        self.values: dict[tuple[int, int], Any] = {}
        self.tensors: list[torch.Tensor] = []
        self.counts: dict[int, int] = {}
        self.recording = self.replaying = False
        for number, (name, module) in enumerate(model.named_modules()):
            holds = not name or any(end.startswith(f"{name}.") for end in ends)
            if not (holds or isinstance(module, torch.jit.ScriptModule)):
                module.forward = self._remembering(number, module, module.forward)

    def record(self) -> dict[tuple[int, int], Any]:
        """Note what modules give, from now on."""
        self.values, self.tensors, self.counts = {}, [], {}
        self.recording, self.replaying = True, False
        return self.values

    def replay(self, values: dict[tuple[int, int], Any]) -> None:
        """Give what was noted, from now on."""
        self.values, self.counts = values, {}
        self.recording, self.replaying = False, True

    def end(self) -> None:
        """A part is called: what comes next is behind it."""
        self.recording = self.replaying = False

    def _remembering(
        self, number: int, module: nn.Module, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        def remembering(*args: Any, **kwargs: Any) -> Any:
            if not (self.recording or self.replaying):
                return forward(*args, **kwargs)
            key = (number, self.counts.get(number, 0))
            self.counts[number] = key[1] + 1
            if self.replaying and key in self.values:
                return copy.deepcopy(self.values[key])
            recording, self.recording = self.recording, False
            replaying, self.replaying = self.replaying, False
            before = _state(module, args, kwargs)
            value = forward(*args, **kwargs)
            self.recording, self.replaying = recording, replaying
            if recording and _same(before, _state(module, args, kwargs)):
                self._keep(key, value, (args, kwargs))
            return value

        return remembering

    def _keep(self, key: tuple[int, int], value: Any, given: Any) -> None:
        memo: dict[int, Any] = {}
        try:
            own = copy.deepcopy(value, memo)
        except Exception:  # noqa: BLE001 - what a user's object raises
            return
        tensors = [part for part in memo.get(id(memo), ()) if isinstance(part, torch.Tensor)]
        there = {t.untyped_storage()._cdata for t in tensors_of(given)}
        if not any(tensor.untyped_storage()._cdata in there for tensor in tensors):
            self.values[key] = own
            self.tensors += tensors


State = tuple[Any, list[Any]]  # what is compared, and what must be the very same objects


def _state(module: nn.Module, args: Any, kwargs: Any) -> State | None:
    """What a call changes that does more than to give something; None where it cannot be told."""
    own = [value for part in module.modules() for value in vars(part).values()]
    try:
        versions = tuple(t._version for t in (*tensors_of((args, kwargs)), *module.buffers()))
    except RuntimeError:  # tensors of inference have no versions
        return None
    draws = [torch.get_rng_state().numpy().tobytes()]
    if torch.cuda.is_initialized():
        draws += [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return (versions, draws), [*own, *module.buffers()]


def _same(before: State | None, after: State | None) -> bool:
    if before is None or after is None or before[0] != after[0]:
        return False
    return len(before[1]) == len(after[1]) and all(map(operator.is_, before[1], after[1]))
