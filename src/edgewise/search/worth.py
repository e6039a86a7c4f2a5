"""What another look at a mask is worth, where evaluations may see a part of the examples."""

from collections.abc import Sequence

import numpy as np

from ..graph.graph import Mask
from .known import Known
from .proposals import Predictor, feasible
from .space import Space
from .stopping import expected_improvement


def hopeful(space: Space, model: Predictor, known: Known) -> list[Mask]:
    """The masks within the budget that saw a part of the examples, most hopeful first.

    Hope is expected improvement on the best of those that saw everything (Jones, Schonlau &
    Welch, "Efficient global optimization of expensive black-box functions", 1998, eq. 15).
    """
    masks = sorted(feasible(space, known.estimates), key=lambda mask: mask.bits)
    part = np.array([known.lacks(mask) > 0 for mask in masks])
    if not part.any():
        return []
    mean, std = model.predict_link(space.graph.matrix(masks), return_std=True)
    best = mean[~part].min() if not part.all() else mean.min()
    hope = expected_improvement(mean, std, float(best))
    return [masks[int(i)] for i in np.lexsort((mean, -hope)) if part[i]]


def parts_pay(
    space: Space, model: Predictor, known: Known, masks: Sequence[Mask], share: float
) -> bool:
    """Whether measuring masks on a share of the examples tells more than fewer masks on all.

    An observation with a noise of variance n² takes σ⁴ / (σ² + n²) from a mask's variance σ², and
    costs a share s of a whole one, which takes all of it: it pays as long as σ² / (σ² + n²) > s.
    """
    estimates = known.estimates.items()
    noise = [e.noise for m, e in estimates if known.lacks(m) > 1 - 2 * share and space.allows(m)]
    if not noise or not masks:
        return True
    _, std = model.predict(space.graph.matrix(masks), return_std=True)
    doubt = float(np.mean(std**2))
    return doubt > share * (doubt + float(np.median(noise)) ** 2)
