"""How the engine runs. None of it changes what is measured beyond rounding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...values.quantities import check_count, parse_bytes


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs; none of it changes what is measured beyond rounding.

    Args:
        memory: what values kept for later masks may take, in bytes or as text ("2GiB"). Values
            that do not fit are dropped and computed again. The weights that widths cut for masks
            that are measured together take about as much again, or those of one mask.
        chunk: masks that share values at a time, at most. Results of a chunk arrive together, so
            that fewer share, at least 4, where they would take longer than a minute.
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
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        parse_bytes(self.memory)

    @property
    def limit(self) -> int:
        """`memory` in bytes."""
        return parse_bytes(self.memory)


class Memory:
    """Bytes that several caches hold together, and what they may hold.

    `spare` are values that no mask waits for, by what drops them, the least recently read first.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.spare: dict[tuple[Any, Any], Callable[[Any], None]] = {}

    def fits(self, size: int) -> bool:
        """Whether so many bytes more fit, once spare values have made room for them."""
        while self.spare and self.held + size > self.limit:
            (_, value), drop = next(iter(self.spare.items()))
            drop(value)
        return self.held + size <= self.limit
