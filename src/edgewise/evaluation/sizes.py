"""Sizes: which examples of a split an evaluation saw.

The examples of a split are dealt into eight lots, always alike. A size is some of these lots, and
its name, such as "search:01100000", is that of a split: storage, claims and workers treat it so.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from ..values.nested import batch_size
from .loaders import Batch, examples
from .records import Split

LOTS = 8
Rows = NDArray[np.int64]


def sized(split: Split, lots: Collection[int], count: int) -> Split:
    """The name of some lots of a split, of which there are so many; all of them are the split."""
    bits = "".join("01"[lot in lots] for lot in range(count))
    return f"{split}:{bits}" if "0" in bits else split


class Lots:
    """The lots of a split.

    Whole batches are dealt where there are enough of them, since an example then is in the same
    batch whatever the size; else the rows of each batch, where they can be told.

    Args:
        batches: of the split.
        cuttable: whether batches are tensors whose first dimension counts examples, as far as the
            caller knows.
    """

    def __init__(self, batches: Sequence[Batch], cuttable: bool = True) -> None:
        self.batches = batches
        sizes = [examples(*batch) for batch in batches]
        self.samples = sum(sizes)
        place = np.arange(self.samples)
        self.first = np.cumsum([0, *sizes])
        rows = len(batches) < LOTS and cuttable and all(map(_rows_can_be_told, batches))
        self.count = min(LOTS, self.samples if rows else len(batches))
        dealt = place if rows else np.repeat(np.arange(len(batches)), sizes)
        self._lot = dealt % self.count
        self._cut: tuple[Split, list[tuple[int, Batch]]] = "", []

    def lots(self, split: Split) -> tuple[int, ...]:
        """Which lots a size names."""
        bits = split.partition(":")[2]
        return tuple(i for i, bit in enumerate(bits) if bit == "1") or tuple(range(self.count))

    @property
    def sizes(self) -> list[int]:
        """Examples in each lot."""
        return [int(size) for size in np.bincount(self._lot)]

    def rows(self, split: Split) -> Rows:
        """[n] places in the whole split of the examples of a size, in its order."""
        return np.flatnonzero(np.isin(self._lot, self.lots(split)))

    def of(self, split: Split) -> list[tuple[int, Batch]]:
        """The batches of a size, each with its number in the whole split."""
        if self._cut[0] != split:
            self._cut = split, self._of(split)
        return self._cut[1]

    def _of(self, split: Split) -> list[tuple[int, Batch]]:
        mine, found = np.isin(self._lot, self.lots(split)), []
        for number, batch in enumerate(self.batches):
            here = mine[self.first[number] : self.first[number + 1]]
            if here.all():
                found.append((number, batch))
            elif here.any():
                found.append((number, _cut(batch, torch.from_numpy(np.flatnonzero(here)))))
        return found


def few(batch: Batch, count: int) -> Batch:
    """The first rows of a batch, so many at most, where rows can be told."""
    rows = min(count, examples(*batch))
    return _cut(batch, torch.arange(rows)) if _rows_can_be_told(batch) else batch


def _rows_can_be_told(batch: Batch) -> bool:
    """Whether targets are tensors with a value an example, as inputs are."""
    size = examples(*batch)
    targets = [leaf for leaf in pytree.tree_leaves(batch[1]) if leaf is not None]
    fits = all(isinstance(t, torch.Tensor) and t.ndim and len(t) == size for t in targets)
    return fits and size == batch_size(batch[0])


def _cut(batch: Batch, rows: torch.Tensor) -> Batch:
    """Some rows of a batch; tensors of another length are for all of them."""
    size = batch_size(batch[0])

    def part(value: torch.Tensor) -> torch.Tensor:
        own = value.ndim and len(value) == size
        return value[rows.to(value.device)] if own else value

    found: Batch = pytree.tree_map_only(torch.Tensor, part, batch)
    return found
