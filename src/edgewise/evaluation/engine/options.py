"""How the engine runs. None of it changes what is measured beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import EdgewiseError
from ...values.quantities import parse_bytes


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs; none of it changes what is measured beyond rounding.

    Args:
        memory: what values kept for later masks may take, in bytes or as text ("2GiB"). Values
            that do not fit are dropped and computed again.
        chunk: masks that share values at a time. Results of a chunk arrive together, so that fewer
            share, at least 4, where they would take longer than a minute.
        piece: examples that run through the network at a time; None fits them to the cache of a
            processor, and to the first batch on an accelerator. Only networks that treat every
            example by itself are run in pieces.
        channels_last: whether images lie in memory with their channels last; None: on a
            processor, if there are two-dimensional convolutions.

    Raises:
        EdgewiseError: a number is not positive, or `memory` is no size.

    Examples:
        >>> ew.EngineOptions(memory="2GiB").limit
        2147483648
    """

    memory: str | int = "1GiB"
    chunk: int = 32
    piece: int | None = None
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        for name in ("chunk", "piece"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise EdgewiseError(f"{name} must be a whole number of at least 1, got {value!r}.")
        parse_bytes(self.memory)

    @property
    def limit(self) -> int:
        """`memory` in bytes."""
        return parse_bytes(self.memory)
