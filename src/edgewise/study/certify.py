"""A certificate for a chosen mask: what the solver proves, and how random masks compare."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PlanError
from ..evaluation.records import Evaluation, Split
from ..graph.graph import Mask
from ..pruning.certificate import Certificate, Proof, Rivals
from ..search import Ask, Space, draw_at_budget, solve
from ..surrogates import Degree2, Linear
from .fitting import Finalists
from .measuring import Measuring
from .progress import Teller

NODES = 2000  # of a solver's tree: a second or two, and no clock decides how far it gets
STREAM = 0x5EED  # beside the study's seed, so that no other draw of the study is repeated
SPLIT: Split = "verify"  # on which masks are compared: what is measured there never guides a search


def certify(
    space: Space, chosen: Finalists, winner: Mask, measuring: Measuring, *,
    count: int, seed: int, told: Teller,
) -> Certificate:  # fmt: skip
    """What can be promised of a chosen mask; random masks are measured for it."""
    proof = prove(space, chosen.choice.name, chosen.model, winner)
    reason = f"The exact solver cannot minimise the interactions of {chosen.choice.name}."
    rivals = _rivals(space, winner, measuring, count, seed, told) if count else None
    return Certificate(proof, None if proof else reason, rivals)


def prove(space: Space, name: str, model: Any, mask: Mask) -> Proof | None:
    """What the exact solver says of a surrogate's prediction; None if it cannot treat it whole."""
    if not isinstance(model, Degree2 | Linear):
        return None
    found = solve(space, model, nodes=NODES)
    value = float(model.predict_link(space.graph.matrix([mask]))[0])
    bound = min(found.bound - found.left_out, value)
    predicted, least = (float(np.exp(v)) if model.link == "log" else v for v in (value, bound))
    return Proof(name, predicted, least)


def _rivals(
    space: Space, winner: Mask, measuring: Measuring, count: int, seed: int, told: Teller
) -> Rivals:
    masks = draw_at_budget(space, count, np.random.default_rng([seed, STREAM]))
    told.phase = "certifying"
    ask = Ask("certifying", "certificate", tuple(dict.fromkeys(masks)))
    told.total += len(ask.masks)
    known = measuring.known(SPLIT)
    measuring.answer(ask, SPLIT, known, told)
    return compared([known[str(mask)] for mask in masks], known[str(winner)])


def compared(drawn: Sequence[Evaluation], winner: Evaluation) -> Rivals:
    """How many of the drawn masks beat the winner.

    A mask that could not be measured may be better for all that is known, and counts as such; one
    whose loss is NaN is not.
    """
    if winner.loss is None:
        raise PlanError(f"The chosen mask was not measured on the {winner.split} split.")
    better = sum(
        e.status not in ("ok", "nan") if e.loss is None else e.loss < winner.loss for e in drawn
    )
    failed = sum(not e.ok for e in drawn)
    return Rivals(winner.split, len(drawn), better, failed)
