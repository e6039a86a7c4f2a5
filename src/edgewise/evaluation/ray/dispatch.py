"""What is left to measure: chunks of masks, the workers' deaths they have seen, and patience.

Plain bookkeeping that knows nothing of processes or networks.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...graph.graph import Mask

Chunk = tuple[Mask, ...]
LARGEST_CHUNK = 32
CHUNKS_PER_WORKER = 4  # enough for balance, few enough for masks to share computations
DEATHS = 3  # workers that a mask may take with it


def chunks_of(masks: Iterable[Mask], workers: int) -> list[Chunk]:
    """Masks cut where neighbours have least in common, so that those of a chunk share much.

    Args:
        masks: masks of one graph in the order in which an engine visits them; each is taken once.
        workers: how many will measure them.

    Examples:
        >>> masks = [graph.mask([unit]) for unit in range(4)]
        >>> [[mask.removed for mask in chunk] for chunk in chunks_of(masks, workers=1)]
        [[(0,)], [(1,)], [(2,)], [(3,)]]
    """
    order = list(dict.fromkeys(masks))
    most = min(-(-len(order) // (CHUNKS_PER_WORKER * workers)), LARGEST_CHUNK)
    chunks = []
    while order:
        size = _cut(order, most)
        chunks.append(tuple(order[:size]))
        order = order[size:]
    return chunks


def _cut(order: Sequence[Mask], most: int) -> int:
    """The size from half of `most` to `most` after which neighbours have least in common."""
    if len(order) <= most:
        return len(order)
    sizes = range(max((most + 1) // 2, 1), most + 1)
    return min(sizes, key=lambda size: (_common(order[size - 1], order[size]), -size))


def _common(one: Mask, other: Mask) -> int:
    """Units of which two masks say the same."""
    return sum(a == b for a, b in zip(one.bits, other.bits, strict=True))


class Dispatch:
    """Masks on their way: queued, out, or answered; the first answer to each counts.

    Args:
        masks: to be measured, in the order in which an engine visits them.
        workers: how many will measure them.
    """

    def __init__(self, masks: Iterable[Mask], workers: int) -> None:
        chunks = chunks_of(masks, workers)
        self.queue = deque(chunks)
        self.pending = {str(mask): mask for chunk in chunks for mask in chunk}
        self.deaths: Counter[Mask] = Counter()

    def take(self) -> Chunk:
        """The next chunk without what was answered meanwhile; empty if there is none."""
        while self.queue:
            chunk = self.unanswered(self.queue.popleft())
            if chunk:
                return chunk
        return ()

    def unanswered(self, chunk: Chunk) -> Chunk:
        """What is left of a chunk."""
        return tuple(mask for mask in chunk if str(mask) in self.pending)

    def answer(self, bits: str) -> bool:
        """Note an answer; whether it is the first."""
        return self.pending.pop(bits, None) is not None

    def issue_again(self, chunk: Chunk) -> None:
        """Queue what is left of a chunk whose worker may be stuck."""
        self.queue.append(self.unanswered(chunk))

    def bury(self, chunk: Chunk) -> list[Mask]:
        """A worker died over a chunk: what is left goes out mask by mask, to find the culprit.

        Returns:
            The masks given up, over which too many workers have died.
        """
        left = self.unanswered(chunk)
        self.deaths.update(left)
        dead = [mask for mask in left if self.deaths[mask] >= DEATHS]
        for mask in dead:
            del self.pending[str(mask)]
        self.queue.extend((mask,) for mask in self.unanswered(left))
        return dead


@dataclass
class Patience:
    """How long a worker may be silent, from how long others took.

    Args:
        least: seconds that are never too long.
        factor: how much slower than the slowest chunk so far is too slow.
    """

    least: float
    factor: float = 10.0
    slowest: float = 0.0  # seconds a mask and sample

    def learn(self, seconds: float, work: int) -> None:
        """A chunk of `work` masks times samples took so long."""
        self.slowest = max(self.slowest, seconds / work)

    def seconds(self, work: int) -> float | None:
        """How long to wait for such a chunk; None if nothing is known to judge by."""
        if not self.slowest:
            return None
        return max(self.least, self.factor * self.slowest * work)
