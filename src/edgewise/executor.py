"""Who measures masks: this process, or workers elsewhere behind the same interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from .engine import EngineOptions
from .evaluate import Engine, Outcome
from .graph import Graph, Mask
from .objective import Objective
from .records import Split


class Executor(Protocol):
    """Measures masks of one graph with one objective."""

    def evaluate(
        self, masks: Sequence[Mask], split: Split = "search", *, tensors: bool = False
    ) -> Iterator[Outcome]:
        """One outcome a mask, in any order, as they arrive; failures are outcomes too."""
        ...

    def close(self) -> None:
        """Free what the executor holds; it measures nothing afterwards."""
        ...


MakeExecutor = Callable[[Graph, Objective, EngineOptions], Executor]


class Serial(Engine):
    """Measures in this process, one mask after another."""

    def close(self) -> None:
        """Nothing is held beyond this object."""
