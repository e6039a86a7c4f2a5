"""How the engine runs. None of it changes what is measured beyond rounding."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import EdgewiseError

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6}
_UNITS |= {"GB": 10**9}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs; none of it changes what is measured beyond rounding.

    Args:
        memory: what values kept for later masks may take, in bytes or as text ("2GiB"). Values
            that do not fit are dropped and computed again.
        chunk: masks that share values at a time. Results of a chunk arrive together.
        piece: examples that run through the network at a time; None fits them to the cache of a
            processor. Only networks that treat every example by itself are run in pieces.
        stack: masks whose values go through an operator together, which pays where starting an
            operator takes longer than running it. None: 1 on a processor; on an accelerator 1 or
            `chunk`, whichever takes less time for the first piece of the data. Masks with
            batch-norm recovery run one by one.
        channels_last: whether images lie in memory with their channels last; None: on a
            processor, if there are two-dimensional convolutions.

    Raises:
        EdgewiseError: a number is not positive, or `memory` is no size.

    Example:
        >>> EngineOptions(memory="2GiB").limit
        2147483648
    """

    memory: str | int = "1GiB"
    chunk: int = 32
    piece: int | None = None
    stack: int | None = None
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        for name in ("chunk", "piece", "stack"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise EdgewiseError(f"{name} must be a whole number of at least 1, got {value!r}.")
        parse_bytes(self.memory)

    @property
    def limit(self) -> int:
        """`memory` in bytes."""
        return parse_bytes(self.memory)


def parse_bytes(size: int | str) -> int:
    """Bytes of a size such as 1000, "64MiB" or "2 GB".

    Raises:
        EdgewiseError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", str(size))
    if isinstance(size, bool) or not match or match[2].upper() not in _UNITS:
        raise EdgewiseError(f'A size is bytes or text such as "512MiB" or "2GiB", got {size!r}.')
    return int(float(match[1]) * _UNITS[match[2].upper()])
