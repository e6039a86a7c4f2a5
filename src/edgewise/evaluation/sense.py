"""Whether an objective tells right answers from wrong ones, on the unpruned network."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from math import inf, isfinite
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from ..graph.graph import Graph
from ..pruning.prune import unpruned
from ..tracing.program import evaluating
from ..values.nested import copies_of, judged
from .loaders import examples
from .objective import Objective

DRAWS = 16  # orders of the targets
EXAMPLES = 256  # of the search split that are looked at, and the fewest that say anything
FEWEST = 16
CERTAIN, CHANCE = 6.0, 3.0  # standard deviations


@dataclass(frozen=True)
class Sense:
    """What the unpruned network loses on some examples.

    Args:
        right: with their own targets.
        shuffled: with those of others, in several orders.
        constant: with classes for targets and cross-entropy, what one answer for all would lose.
    """

    right: float
    shuffled: tuple[float, ...]
    constant: float = inf

    @property
    def deviations(self) -> float:
        """Standard deviations of the shuffled losses by which the right one is below them."""
        return (mean(self.shuffled) - self.right) / max(stdev(self.shuffled), 1e-12)

    @property
    def is_score(self) -> bool:
        """Whether right answers are what costs."""
        return self.deviations < -CERTAIN

    @property
    def by_chance(self) -> bool:
        """Whether targets hardly matter, or no answer at all would be better."""
        return self.deviations < CHANCE or self.right > self.constant


def sense(graph: Graph, objective: Objective) -> Sense | None:
    """Compare the unpruned network's loss with what it is for targets in another order.

    None where it says nothing: too few examples, targets that are no tensors of one shape, or a
    loss that does not depend on their order.
    """
    batches = []
    for batch in objective.splits["search"]:
        batches.append(batch)
        if sum(starmap(examples, batches)) >= EXAMPLES:
            break
    sizes, targets = list(starmap(examples, batches)), [y for _, y in batches]
    known = all(isinstance(y, Tensor) and y.ndim and len(y) == n
                for y, n in zip(targets, sizes, strict=True))  # fmt: skip
    if not known or len({y.shape[1:] for y in targets}) > 1 or sum(sizes) < FEWEST:
        return None
    whole, random = torch.cat(targets), torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(whole), generator=random) for _ in range(DRAWS)]
    module = unpruned(graph)
    try:
        with evaluating(module), torch.inference_mode():
            outputs = [objective.outputs(module, batch, n) for n, batch in enumerate(batches)]
            right, *shuffled = (
                _loss(objective, outputs, y.split(sizes))
                for y in (whole, *(whole[o] for o in orders))
            )
    except Exception:  # noqa: BLE001 - user code may raise anything; the search will say so
        return None
    if not isfinite(sum(shuffled) + right) or min(shuffled) == max(shuffled):
        return None
    return Sense(right, tuple(shuffled), _constant(objective, whole))


def _loss(objective: Objective, outputs: Sequence[Any], targets: Sequence[Tensor]) -> float:
    """The mean loss of batches, which count by their examples."""
    pairs = list(zip(outputs, targets, strict=True))
    total = sum(float(judged(objective.loss, copies_of(o), y).mean()) * len(y) for o, y in pairs)
    return total / sum(map(len, targets))


def _constant(objective: Objective, targets: Tensor) -> float:
    """The entropy of class indices in nats, where the loss is a cross-entropy by its name."""
    name = getattr(objective.loss, "__name__", type(objective.loss).__name__).lower()
    if targets.ndim > 1 or targets.is_floating_point() or "cross" not in name.replace("_", ""):
        return inf
    shares = targets.unique(return_counts=True)[1] / len(targets)
    return float(-(shares * shares.log()).sum())
