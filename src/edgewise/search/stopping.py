"""When a search ends early: nothing better is expected that the data could tell apart.

The rule of Makarova et al., "Automatic termination for hyperparameter optimization", AutoML 2022:
what may still be gained is compared with the statistical error of what is measured. What may be
gained is the expected improvement (Jones, Schonlau & Welch, "Efficient global optimization of
expensive black-box functions", 1998, eq. 15) of the proposals, which are looked for where it is
large. The error is that of a paired difference, since all masks see the same examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from ..values.quantities import check_count
from .proposals import feasible
from .space import Space

FRACTION = 0.5  # of the error, below which an improvement is not worth an evaluation
NEAR = 10  # masks next to the best one that tell the error

Array = NDArray[np.float64]
Noise = Callable[[Sequence[Mask]], float]


@dataclass(frozen=True)
class Patience:
    """How long a search goes on without hope.

    Args:
        rounds: in a row without an expected improvement above the noise, after which it ends.
        noise: the standard error of the difference in mean loss between the first of some
            measured masks and another of them.

    Raises:
        EdgewiseError: the rounds are no number of at least 1.
    """

    rounds: int
    noise: Noise

    def __post_init__(self) -> None:
        check_count("patience", self.rounds)


def hopeless(
    space: Space, model: Any, known: Mapping[Mask, Evaluation], proposed: Sequence[Mask],
    noise: Noise,
) -> bool:  # fmt: skip
    """Whether no proposal is expected to improve on what is known by a fraction of the noise.

    Args:
        space: the feasible masks.
        model: a surrogate fitted to what is known.
        known: evaluations by mask.
        proposed: what would be measured next.
        noise: see `Patience`.
    """
    losses = feasible(space, known)
    if len(losses) < 2 or not proposed:
        return not proposed
    measured = sorted(losses, key=lambda mask: (losses[mask], mask.bits))
    least = float(model.predict(space.graph.matrix(measured)).min())
    mean, std = model.predict(space.graph.matrix(proposed), return_std=True)
    gain = expected_improvement(mean, std, least)
    return float(gain.max()) < FRACTION * noise(measured[: NEAR + 1])


def expected_improvement(mean: Array, std: Array, least: float) -> Array:
    """[n] by how much normal losses of such means and deviations [n] are expected to undercut one.

    E max(least - loss, 0) = (least - mean) Φ(z) + std φ(z) with z = (least - mean) / std.
    """
    z = (least - mean) / np.maximum(std, 1e-300)
    return np.asarray((least - mean) * norm.cdf(z) + std * norm.pdf(z))


def paired_error(losses: Sequence[NDArray[Any]]) -> float:
    """The standard error of the mean of differences to the first losses; the median of the others.

    Args:
        losses: [n_examples] of at least two masks.
    """
    first, *others = (np.asarray(each, dtype=np.float64) for each in losses)
    errors = [(each - first).std(ddof=1) / np.sqrt(first.size) for each in others]
    return float(np.median(errors))
