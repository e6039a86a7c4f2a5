"""The time that networks and their operators take."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

WARM = 2  # runs that are not counted: they prepare kernels and memory


class Meter(Protocol):
    """What tells how long networks take; `Stopwatch` unless another is given."""

    def networks(self, models: Sequence[nn.Module]) -> NDArray[np.float64]:
        """Seconds [rounds, models] of one batch; in each round the models take turns."""
        ...

    def operators(self, program: fx.GraphModule) -> dict[str, float]:
        """Seconds of each node of a program, by name."""
        ...


class Stopwatch:
    """A meter that runs networks on example inputs.

    Args:
        args: example inputs, one batch.
        threads: of torch, while it measures.
        rounds: how often everything is run.
        device: where.
    """

    def __init__(
        self, args: tuple[Any, ...], threads: int, rounds: int, device: str = "cpu"
    ) -> None:
        self.args, self.threads, self.rounds = args, threads, rounds
        self.clock = clock_of(device, threads)

    def networks(self, models: Sequence[nn.Module]) -> NDArray[np.float64]:
        seconds = np.zeros((self.rounds, len(models)))
        with on_threads(self.threads), torch.inference_mode():
            for model in models:
                for _ in range(WARM):
                    model(*self.args)
            for times in seconds:
                for number, model in enumerate(models):
                    begin = self.clock()
                    model(*self.args)
                    times[number] = self.clock() - begin
        return seconds

    def operators(self, program: fx.GraphModule) -> dict[str, float]:
        timed = _Timed(program, self.clock)
        with on_threads(self.threads), torch.inference_mode():
            for _ in range(WARM + self.rounds):
                timed.run(*self.args)
        return {name: float(np.median(times[WARM:])) for name, times in timed.seconds.items()}


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """torch on so many threads within, on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clock_of(device: str, threads: int) -> Callable[[], float]:
    """What tells seconds for a device and a number of threads.

    One thread on a processor has a clock of its own, which stands still while other processes have
    the processor: it tells the latency on an idle machine, also where the machine is busy. Several
    threads, and accelerators once they have finished what they were asked, go by wall time.
    """
    if device == "cpu":
        return time.thread_time if threads == 1 else time.perf_counter

    def clock() -> float:
        torch.get_device_module(device).synchronize()
        return time.perf_counter()

    return clock


class _Timed(fx.Interpreter):
    """Runs a program node by node and notes what each took, its arguments being at hand."""

    def __init__(self, program: fx.GraphModule, clock: Callable[[], float]) -> None:
        super().__init__(program)
        self.clock, self.seconds = clock, dict[str, list[float]]()

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        run = getattr(self, n.op)
        begin = self.clock()
        result = run(n.target, args, kwargs)
        self.seconds.setdefault(n.name, []).append(self.clock() - begin)
        return result
