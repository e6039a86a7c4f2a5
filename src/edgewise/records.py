"""The records that a study leaves: evaluations, budgets and the state of a run. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from .errors import BudgetError
from .graph import Cost
from .quantities import amount, as_limit, limit_text
from .spelling import nearest

Status = Literal["ok", "failed", "nan", "out of memory"]
Split = Literal["search", "trial", "verify", "report"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One mask measured.

    Args:
        mask: the mask's bits as text, "1" = removed.
        split: which data: "search", "verify", "report", or "trial", the first part of "verify".
        loss: mean loss over the samples; None unless status is "ok".
        metrics: further means by name.
        samples: examples seen.
        seconds: wall time it took.
        status: "ok", or why it is none: "failed" (an exception), "nan", "out of memory".
        error: what went wrong.
        origin: why this mask was evaluated: "unpruned", "leave-one-out", "sampled", "proposed",
            "single pick" (the cheapest units by leave-one-out), "greedy" (on the way of a greedy
            removal), "ranking" (the least important widths), "finalist" or "certificate" (a
            random mask beside the chosen one).
        predicted: the surrogate's prediction before the evaluation, if there was one.
        deviation: its standard deviation.
        number: position in the study, from 0.

    Examples:
        >>> first = study.evaluations[0]
        >>> first.origin, first.status, first.samples
        ('unpruned', 'ok', 32)
    """

    mask: str
    split: Split
    loss: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    status: Status = "ok"
    error: str | None = None
    origin: str = ""
    predicted: float | None = None
    deviation: float | None = None
    number: int = -1

    @property
    def ok(self) -> bool:
        return self.status == "ok" and self.loss is not None


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
        limits = self.absolute(unpruned)
        above = {
            name: max(float(getattr(cost, name)) - limit, 0.0) for name, limit in limits.items()
        }
        return sum(above[name] / max(limit, 1e-9) for name, limit in limits.items())

    def __str__(self) -> str:
        return ", ".join(f"{name}={limit_text(value)}" for name, value in self.limits.items())


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, told to a callback after every evaluation.

    Args:
        phase: "leave-one-out", "greedy removal", "sampling", "proposals", "verifying",
            "certifying" or "reporting".
        done: evaluations there are.
        total: evaluations asked for.
        best: lowest loss so far among masks within the budget, None if there is none.
        failures: evaluations that failed.
        seconds: spent in this run so far.
        per_second: evaluations a second, those not counted that were known before; None if all
            were.
    """

    phase: str
    done: int
    total: int
    best: float | None
    failures: int
    seconds: float
    per_second: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Until all is done at the pace so far, None if there is no pace yet."""
        return (self.total - self.done) / self.per_second if self.per_second else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two masks on the same examples.

    Args:
        difference: mean of the first mask's loss minus the second's; negative: the first is better.
        interval: 95 % bootstrap interval of that mean; the masks differ if it leaves out 0.
        samples: examples compared.

    Examples:
        >>> study.compare(graph.empty, graph.empty).difference
        0.0
    """

    difference: float
    interval: tuple[float, float]
    samples: int
