"""Values that later masks read, each kept until the last of them, within a limit of memory."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .options import Memory
from .steps import Step


class Cache:
    """Values by step.

    What does not fit is dropped, the oldest first: in the order of a trie it is the last to be
    read again.

    Args:
        memory: shared with other caches.
        lasts: whether values stay, as long as there is room, when no mask waits for them.
    """

    def __init__(self, memory: Memory, lasts: bool = False) -> None:
        self.memory, self.lasts = memory, lasts
        self.readers: Counter[Step] = Counter()
        self.values: dict[Step, Any] = {}
        self._sizes: dict[Step, int] = {}

    def expect(self, readers: Counter[Step]) -> None:
        """So many masks will read each step's value."""
        self.readers = Counter(readers)
        for step in self.values.keys() & self.readers.keys():
            self.memory.spare.pop((self, step), None)

    def keep(self, step: Step, value: Any) -> None:
        """Keep a value, if it fits."""
        size = size_of(value)
        while not self.memory.fits(size) and self.values:
            self._drop(next(iter(self.values)))
        if self.memory.fits(size):
            self.values[step], self._sizes[step] = value, size
            self.memory.held += size

    def release(self, steps: Iterable[Step]) -> None:
        """One mask has read these steps, or never will."""
        for step in steps:
            self.readers[step] -= 1
            if self.readers[step] <= 0 and step in self.values:
                if self.lasts:
                    self.memory.spare.pop((self, step), None)
                    self.memory.spare[self, step] = self._drop
                else:
                    self._drop(step)

    def clear(self) -> None:
        """Drop everything."""
        for step in list(self.values):
            self._drop(step)

    def _drop(self, step: Step) -> None:
        del self.values[step]
        self.memory.held -= self._sizes.pop(step)
        self.memory.spare.pop((self, step), None)


def size_of(value: Any) -> int:
    """Bytes that the tensors in a value keep alive; a view keeps all of what it shows a part of."""
    leaves = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
    stores = {s.data_ptr(): s.nbytes() for s in (leaf.untyped_storage() for leaf in leaves)}
    return sum(stores.values())
