"""What rules for a share, or for what must be left, come to: sums over the units that go."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """Of the units that a mask removes, Σ weights[name] is at most `most`; `rule` says so."""

    rule: str
    weights: Mapping[str, float]
    most: float
