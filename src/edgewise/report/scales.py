"""Axes: from values to pixels, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDE = 20.0
TINY = 1e-30  # smaller values and differences are drawn as zero


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic map of [low, high] onto [begin, end] pixels."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside end up at the border."""
        part = (self._up(value) - self._up(self.low)) / (self._up(self.high) - self._up(self.low))
        return self.begin + min(max(part, 0.0), 1.0) * (self.end - self.begin)

    def _up(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round values within the scale, four to eight of them where that is possible."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def fitted(values: Sequence[float], begin: float, end: float) -> Scale:
    """A scale with a little room around the values; logarithmic when they span a factor of 20."""
    low, high = min(values), max(values)
    if low > TINY and high > WIDE * low:
        return Scale(low / 1.15, high * 1.15, begin, end, log=True)
    least = max(TINY, 1e-9 * max(abs(low), abs(high)))
    room = (high - low) * 0.06 if high - low > least else max(abs(high) * 0.1, least)
    floor = 0.0 if low >= 0 > low - room else low - room
    return Scale(floor, high + room, begin, end)


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 3 else (1,)
    skip = max(1, round(decades / 7))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**p for p in powers if p % skip == 0 for m in steps]
    return [v for v in values if low <= v <= high]
