"""What a search knows of masks, from evaluations of any size, and which examples they saw."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from .space import Space

TRUST = 8.0  # examples that count for what other masks say of the spread, beside a mask's own
FLOOR = 0.1  # of the control's mean, below which no positive loss is estimated
ALIKE = 1e-3  # relative difference of losses that batches of other sizes explain


class Known:
    """Evaluations by mask; those of parts of the examples are put together as they come.

    Args:
        space: the feasible masks.
        evaluations: of the search split or of sizes of it, with their losses where they have any.
    """

    def __init__(self, space: Space, evaluations: Iterable[Evaluation] = ()) -> None:
        self.space = space
        self.records: dict[Mask, Evaluation] = {}
        self.seen: dict[Mask, set[int]] = {}  # lots, of masks measured on some of them
        self._estimates: dict[Mask, Evaluation] | None = None
        self.add(evaluations)

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Learn from more of them, in an order that does not depend on who finished first."""
        for record in sorted(evaluations, key=lambda e: (e.split, e.mask)):
            if not record.split.startswith("search"):
                continue
            mask = self.space.graph.mask(bits=record.mask)
            lots = record.split.partition(":")[2]
            self.seen.setdefault(mask, set()).update(i for i, b in enumerate(lots) if b == "1")
            self.records[mask] = _merged(self.records.get(mask), record)
        self._estimates = None

    def lacks(self, mask: Mask) -> float:
        """The share of the examples that a mask has not been measured on."""
        record = self.records.get(mask)
        if record is None or not _is_partial(record):
            return float(record is None)
        return 1.0 if record.each is None else float(np.isnan(record.each).mean())

    def rest(self, mask: Mask, sizes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The first of some sizes that a mask has not seen; (), all there is, if it is the last."""
        rest = [size for size in sizes if self.seen[mask].isdisjoint(size)]
        return rest[0] if len(rest) > 1 else ()

    @property
    def whole(self) -> dict[Mask, Evaluation]:
        """Those that saw all examples, or failed."""
        return {mask: e for mask, e in self.records.items() if not _is_partial(e)}

    @property
    def estimates(self) -> dict[Mask, Evaluation]:
        """All of them, as evaluations of the whole with their noise.

        Of what saw some examples, the loss is what it is above a control on these examples, added
        to the mean of the control on all. The control of masks within the budget is the mean of
        those measured in full there, of others the unpruned network: masks that lose about as much
        do so on the same examples. The noise is what these differences vary by from one example to
        another, for each mask and for all others together, over the root of their number.
        """
        if self._estimates is None:
            self._estimates = dict(self.records)
            for within in (False, True):
                self._estimates.update(self._estimated(within))
        return self._estimates

    def _estimated(self, within: bool) -> Mapping[Mask, Evaluation]:
        mine = {
            mask: e for mask, e in self.records.items()
            if e.ok and e.each is not None and self.space.allows(mask) == within
        }  # fmt: skip
        base = self.records.get(self.space.graph.empty)
        if base is None or base.each is None or not any(map(_is_partial, mine.values())):
            return {}
        full = [e.each for e in mine.values() if e.each is not None and not _is_partial(e)]
        control = np.mean(full, axis=0) if within and full else base.each
        each = np.array([e.each for e in mine.values()], np.float64)
        apart, seen = each - control, (~np.isnan(each)).sum(axis=1)
        mean = np.nanmean(apart, axis=1)
        squares = np.nansum((apart - mean[:, None]) ** 2, axis=1)
        free = np.maximum(seen - 1, 0)
        if within and len(full) == 1:
            free[seen == each.shape[1]] = 0  # its own control
        common = squares[free > 0].sum() / free.sum() if free.any() else float(np.var(control))
        spread = (TRUST * common + squares) / (TRUST + free)
        noise = np.sqrt(spread / seen * (1 - seen / each.shape[1]))
        losses = control.mean(dtype=np.float64) + mean
        if np.nanmin(each) >= 0:  # a loss of which none is negative stays so
            losses = np.maximum(losses, FLOOR * control.mean())
        found = zip(mine.items(), losses, noise, seen, strict=True)
        return {
            mask: replace(e, loss=float(loss), noise=float(std), split="search", samples=int(count))
            for (mask, e), loss, std, count in found
            if _is_partial(e)
        }

    def sizes_hold(self, record: Evaluation, alike: float = ALIKE) -> bool:
        """Whether the unpruned network, measured on some examples, loses there what it did before.

        Not where a loss sees the whole batch, or the network does, or takes batches of one size.
        `alike` is the relative difference that rounding explains.
        """
        whole = self.records[self.space.graph.empty].each
        if whole is None or record.each is None:
            return False
        apart = np.nanmean(np.abs(record.each - whole))
        return bool(apart <= alike * np.abs(whole).mean())


def _is_partial(record: Evaluation) -> bool:
    return record.split != "search"


def _merged(known: Evaluation | None, record: Evaluation) -> Evaluation:
    """What two evaluations of a mask say together."""
    if not record.ok:
        return replace(record, split="search")
    if known is None or not known.ok or not _is_partial(record):
        return record
    if not _is_partial(known) or known.each is None or record.each is None:
        return known
    each = np.where(np.isnan(known.each), record.each, known.each)
    if np.isnan(each).any():
        return replace(known, each=each)
    return replace(known, each=each, split="search", loss=float(each.mean(dtype=np.float64)))
