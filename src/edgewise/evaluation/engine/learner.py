"""What takes something from the calibration data, once for all masks that share the step."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch


class Learner(Protocol):
    """A batch norm that takes statistics, or a layer that takes weights."""

    @property
    def known(self) -> bool:
        """Whether it has learned."""
        ...

    def learn(self, pieces: Iterable[Sequence[Any]]) -> None:
        """Learn from the values of its step's inputs on every piece of the calibration data."""
        ...

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What it learned, by the names in the pruned model."""
        ...
