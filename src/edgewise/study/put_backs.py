"""The last step of a plan: what need not have gone comes back."""

from ..evaluation.records import Split
from ..graph.graph import Mask
from ..search import Space
from .finalists import asked
from .measuring import Measuring
from .progress import Teller


def with_put_backs(space: Space, measuring: Measuring, winner: Mask, told: Teller) -> Mask:
    """The mask with units put back, one at a time, while that is within the budget and better.

    In the end there is no unit left that fits and whose return would lower the measured loss: on
    the verify split or, without one, on the search split.
    """
    split: Split = "verify" if "verify" in measuring.objective.splits else "search"
    while True:
        returns = map(winner.with_kept, space.gone(winner))
        fits = [mask for mask in returns if space.allows(mask)]
        if not fits:
            return winner
        told.phase, told.total = "putting back", told.total + len(fits) + 1
        best = measuring.ranked(asked("putting back", [winner, *fits]), split, told)[0]
        if best == winner:
            return winner
        winner = best
