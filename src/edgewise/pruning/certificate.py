"""What is promised of a chosen mask, besides what is measured of it: plain data and plain words."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scipy.special import betaincinv

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Proof:
    """What the exact solver proved about a surrogate; it says nothing about the network.

    Args:
        surrogate: whose predictions they are.
        predicted: loss of the chosen mask.
        least: loss that no mask within the budget is predicted to be below.

    Examples:
        >>> from edgewise.pruning.certificate import Proof
        >>> proof = Proof("Linear", predicted=0.42, least=0.40)
        >>> print(f"{proof.gap:.2f}")
        0.02
    """

    surrogate: str
    predicted: float
    least: float

    @property
    def gap(self) -> float:
        """By how much, at most, another mask within the budget is predicted to lose less."""
        return max(self.predicted - self.least, 0.0)

    def __str__(self) -> str:
        return (
            f"About the surrogate only: {self.surrogate} predicts a loss of {self.predicted:.4g} "
            f"for this mask and of no mask within the budget less than {self.least:.4g} (proven "
            f"by the exact solver; gap {self.gap:.2g})."
        )


@dataclass(frozen=True)
class Rivals:
    """Fresh random masks at the budget that were measured beside the chosen one.

    They had no part in the choice. They are independent draws of one distribution: units go in a
    uniformly random order until the budget is met, and what is not needed for it is put back;
    protected units stay. That is not the same as uniform over all masks within the budget.

    Args:
        split: on which they were measured.
        masks: how many were drawn; one that was drawn twice counts twice.
        better: those of a lower loss than the chosen mask.
        failed: those that gave no loss; unless it was NaN, they count among `better`.

    Examples:
        >>> from edgewise.pruning.certificate import Rivals
        >>> print(f"{Rivals('verify', masks=300, better=0).share:.1%}")
        1.0%
    """

    split: str
    masks: int
    better: int
    failed: int = 0

    @property
    def share(self) -> float:
        """The share of such masks that are better, at most, with 95 % confidence.

        The exact one-sided bound of a proportion (Clopper & Pearson 1934): 1 - 0.05^(1/N) if none
        of N was better.
        """
        if self.better == self.masks:
            return 1.0
        return float(betaincinv(self.better + 1, self.masks - self.better, CONFIDENCE))

    def __str__(self) -> str:
        number = str(self.better) if self.better else "None"
        verb = "have" if self.better > 1 else "has"
        best = f"this mask is among the best {self.share:.2%} of such masks"
        most = f"at most {self.share:.2%} of such masks are better"
        failed = f" ({self.failed} of them failed)" if self.failed else ""
        return (
            f"{number} of {self.masks} fresh random masks at the budget{failed} {verb} a lower "
            f"loss on the {self.split} split: with 95 % confidence {most if self.better else best} "
            "(units removed in random order until the budget is met, protected ones kept)."
        )


@dataclass(frozen=True)
class Certificate:
    """What is promised of a chosen mask.

    Args:
        proof: about the surrogate, None if there is none.
        unproven: why there is no proof.
        rivals: random masks beside the chosen one, None if none were measured.

    Examples:
        >>> study.plan(certify=20).certificate.rivals.masks
        20
    """

    proof: Proof | None = None
    unproven: str | None = None
    rivals: Rivals | None = None

    def check(self, data: Mapping[str, Any]) -> None:
        """ValueError where it contradicts itself, or where `data`, as it was read, lacks a part."""
        if missing := {f.name for f in fields(self)} - data.keys():
            raise ValueError(f"certificate lacks the key {min(missing)!r}")
        if self.rivals is not None and self.rivals.better > self.rivals.masks:
            raise ValueError("certificate.rivals has more better masks than masks")
