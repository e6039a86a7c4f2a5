"""What loss and metrics say of batches, and of a split by its batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from ..errors import ObjectiveError
from ..values.nested import copies_of, joined, judged
from .loaders import Batch, examples
from .losses import BUILT_IN, by_place, perplexity, reads_places

Parts = Sequence[tuple[torch.Tensor, int]]  # values of batches, and how many examples each has


@dataclass(frozen=True)
class Measurement:
    """What a network scored on a split.

    `each` is the loss of every example, if known; `counts` says of metrics that are 0 or 1 for
    every example, such as accuracy, how often they are 1.
    """

    loss: float
    metrics: Mapping[str, float]
    each: torch.Tensor | None = field(repr=False)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OfBatch:
    """What loss and metrics say of one batch: values, and how many examples they are of."""

    loss: tuple[torch.Tensor, int]
    metrics: Mapping[str, tuple[torch.Tensor, int]]
    outputs: Any = None


def values_of(
    measures: Mapping[str, Any], outputs: Any, batch: Batch
) -> list[tuple[torch.Tensor, int]]:
    """What each measure gives for a batch, checked: a scalar or one value an example; how many."""
    together = list(dict.fromkeys(filter(reads_places, measures.values())))
    known: list[tuple[Any, Any]] = []
    if together:
        found = judged(partial(by_place, together), outputs, batch[1])
        known = list(zip(together, found, strict=True))
    values = []
    for name, measure in measures.items():
        value = next((value for one, value in known if one is measure), None)
        if value is None:
            value = _value_of(name, measure, outputs, batch)
            known.append((measure, value))
        values.append(value)
    count = examples(*batch)
    return [(torch.as_tensor(value).detach().cpu().double(), count) for value in values]


def _value_of(name: str, measure: Any, outputs: Any, batch: Batch) -> Any:
    if not any(measure is known for known in BUILT_IN):  # of which none writes into them
        outputs = copies_of(outputs)
    value, count = torch.as_tensor(judged(measure, outputs, batch[1])), examples(*batch)
    if value.numel() != 1 and tuple(value.shape) != (count,):
        raise ObjectiveError(
            f"The {name} must give a scalar or one value an example ([{count}]); it gave shape "
            f"{list(value.shape)}."
        )
    return value


def gathers(metric: Any) -> bool:
    """Whether a metric takes batch after batch, and then tells."""
    return hasattr(metric, "update") and hasattr(metric, "compute")


def gathered(
    name: str, metric: Any, pairs: Iterable[tuple[Any, Batch]]
) -> dict[str, tuple[float, None]]:
    metric.reset()
    for out, (_, targets) in pairs:
        metric.update(copies_of(out), joined(metric, copies_of(targets), out))
    value = metric.compute()
    metric.reset()
    values = value if isinstance(value, Mapping) else {name: value}
    return {str(key): (float(value), None) for key, value in values.items()}


def metric_of(metric: Any, parts: Parts) -> tuple[float, int | None]:
    """The mean of a metric, or what is made of it; and its count, if it is 0 or 1 everywhere."""
    if metric is perplexity:
        return float(np.exp(mean_of(parts))), None
    binary = all(v.numel() == n and ((v == 0) | (v == 1)).all() for v, n in parts)
    return mean_of(parts), int(sum(float(v.sum()) for v, _ in parts)) if binary else None


def mean_of(parts: Parts) -> float:
    total = sum(count for _, count in parts)
    return float(sum(float(value.mean()) * count for value, count in parts)) / total
