"""Limits on what a mask may leave, beside `Cost`, which they limit."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields

from ..errors import BudgetError
from ..values.quantities import amount, as_limit, limit_text
from ..values.spelling import nearest
from .graph import Cost

log = logging.getLogger("edgewise")


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on what remains; several hold at once.

    A float up to 1.0 is a fraction of the unpruned network; an int, or a number above 1, is an
    absolute limit. `Budget(macs=0.7)` leaves at most 70 % of the MACs; `Budget(units=46)` at most
    46 live units. Text has a unit: "70%", "20M", "64MB", "8ms".

    Args:
        units: live units.
        params: parameter elements.
        macs: multiply-accumulates for one example.
        activation_bytes: bytes of activations for one example.
        weight_bytes: bytes of the parameters.
        latency: time for one batch, as a latency table predicts it (see `ew.latency`); a plan is
            measured.

    Raises:
        BudgetError: no limit is given, or one has an unknown name, is not positive, or has a unit
            that it cannot have.

    Examples:
        >>> ew.Budget(params="20M", latency="8ms").limits
        {'params': '20M', 'latency': '8ms'}
    """

    units: int | float | str | None = None
    params: int | float | str | None = None
    macs: int | float | str | None = None
    activation_bytes: int | float | str | None = None
    weight_bytes: int | float | str | None = None
    latency: int | float | str | None = None

    def __new__(cls, *args: object, **limits: object) -> Budget:
        """Refuse unknown names before Python does, which knows no nearest one."""
        known = [f.name for f in fields(cls)]
        for name in limits:
            if name not in known:
                raise BudgetError(f"No limit is called {name!r}.{nearest(name, known)}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if not self.limits:
            raise BudgetError("A budget needs at least one limit, for example Budget(macs=0.7).")
        for name, value in self.limits.items():
            object.__setattr__(self, name, as_limit(name, value))

    @property
    def limits(self) -> dict[str, float | str]:
        """The limits that are given, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def absolute(self, unpruned: Cost) -> dict[str, float]:
        """The limits as absolute numbers for a network that costs `unpruned`."""
        return {
            name: amount(name, value, getattr(unpruned, name))
            for name, value in self.limits.items()
        }

    def allows(self, cost: Cost, unpruned: Cost) -> bool:
        """Whether a cost is within every limit."""
        return all(
            getattr(cost, name) <= limit + 1e-9 for name, limit in self.absolute(unpruned).items()
        )

    def excess(self, cost: Cost, unpruned: Cost) -> float:
        """How far a cost is above the limits, as the sum of relative excesses (0 = allowed)."""
        return sum(
            max(float(getattr(cost, name)) - limit, 0.0) / max(limit, 1e-9)
            for name, limit in self.absolute(unpruned).items()
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}={limit_text(value)}" for name, value in self.limits.items())


def as_budget(value: Budget | float | str | None) -> Budget:
    """The budget that is given; a number or a text alone is one of MACs, which is logged.

    Examples:
        >>> from edgewise.graph.budget import as_budget
        >>> as_budget(0.5)
        Budget(units=None, params=None, macs=0.5, activation_bytes=None, weight_bytes=None, ...)
    """
    if isinstance(value, Budget):
        return value
    found = Budget(macs=0.7 if value is None else value)
    if value is not None:
        log.warning("budget=%r is read as Budget(%s): at most so much of the MACs.", value, found)
    return found
