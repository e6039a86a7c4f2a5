"""The masks a move from another, and which of them a space allows, found with few counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.graph import Mask
from ..graph.liveness import liveness
from .space import ROUNDING, Space

NONE = -1  # in place of a unit
Amounts = list[float]
Alone = dict[int, Amounts | None]
Sides = tuple[list[int], list[int]]  # units that can be put back, and that can be removed


class Moves(Sequence[Mask]):
    """Masks some moves from another, made when they are asked for; `rows` are all of them.

    Args:
        space: of the masks.
        mask: the other one.
        swaps: [n, 2] the unit that is put back and the one that is removed; NONE for neither.
        alone: what units cost by themselves near the mask, as far as it is known; is added to.
    """

    def __init__(
        self, space: Space, mask: Mask, swaps: NDArray[np.int64], alone: Alone | None = None
    ) -> None:
        self.space, self.mask, self.swaps = space, mask, swaps
        self.alone = {} if alone is None else alone
        self.rows = np.tile(np.array(mask.bits, dtype=np.float64), (len(swaps), 1))
        for units, bit in zip(swaps.T, (0.0, 1.0), strict=True):
            rows = np.flatnonzero(units != NONE)
            self.rows[rows, units[rows]] = bit
        self._mending: dict[int, set[int]] = {}  # by units whose removal alone disconnects

    def __len__(self) -> int:
        return len(self.swaps)

    def __getitem__(self, index: Any) -> Any:
        return moved(self.mask, self.swaps[index].tolist())

    def allowed(self, index: int) -> bool:
        """Whether the space allows one of the masks.

        It is counted only if what each half of the swap costs alone adds up to the budget at most,
        and if it is not known to disconnect.
        """
        back, more = self.swaps[index].tolist()
        if back not in self._mending.get(more, {back}) or not self._may_fit(back, more):
            return False
        mask = self[index]
        if NONE not in (back, more) and self.space.cost(mask) is None and more not in self._mending:
            gone = np.setdiff1d(self.swaps[:, 0], [NONE]).tolist()
            self._mending[more] = self._mend(self.mask.with_removed(more), gone)
        return self.space.allows(mask)

    def _may_fit(self, back: int, more: int) -> bool:
        """Whether a swap is within the limits, if what its halves cost adds up."""
        if back == NONE or self.space.adds_up[0]:
            return True
        known, fuller = self.space.cost(self.mask), self._alone(back)
        less = [0.0] * len(self.space.limits) if more == NONE else self._alone(more)
        if known is None or fuller is None or less is None:
            return True
        amounts = zip(self.space.limits.items(), fuller, less, strict=True)
        return all(
            getattr(known, name) + one - other <= limit * (1 + ROUNDING)
            for (name, limit), one, other in amounts
        )

    def _alone(self, unit: int) -> Amounts | None:
        """What a unit costs, of each limited quantity, when it alone changes; None if it cannot."""
        if unit not in self.alone:
            masks = self.mask.with_kept(unit), self.mask.with_removed(unit)
            fuller, less = map(self.space.cost, masks)
            self.alone[unit] = None
            if fuller and less:
                names = self.space.limits
                self.alone[unit] = [getattr(fuller, n) - getattr(less, n) for n in names]
        return self.alone[unit]

    def _mend(self, mask: Mask, gone: Sequence[int]) -> set[int]:
        """Which of these removed units, each put back alone, connect a mask.

        By halves, as what does not connect with all of them does so with none.
        """
        graph = self.space.graph
        if not liveness(graph, mask.with_kept(*gone)).connected:
            return set()
        if len(gone) < 2:
            return set(gone)
        half = len(gone) // 2
        return self._mend(mask, gone[:half]) | self._mend(mask, gone[half:])


def moves_of(space: Space, mask: Mask, sides: Sides, units: frozenset[int], alone: Alone) -> Moves:
    """All pairs of a unit put back, or none, and one removed, or none, but for (none, none).

    Of these units only, if there are any; without those that are expected outside the budget.
    """
    gone, here = ([NONE, *(u for u in side if not units or u in units)] for side in sides)
    swaps = np.stack([np.repeat(gone, len(here)), np.tile(here, len(gone))], axis=1)[1:]
    moves = Moves(space, mask, swaps, alone)
    likely = space.likely(moves, mask)
    return moves if likely.all() else Moves(space, mask, swaps[likely], alone)


def moved(mask: Mask, swap: Sequence[int]) -> Mask:
    """The mask with one unit put back and one removed, or NONE of these."""
    back, more = swap
    mask = mask if back == NONE else mask.with_kept(back)
    return mask if more == NONE else mask.with_removed(more)
