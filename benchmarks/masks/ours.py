"""edgewise's own search on a meter."""

import numpy as np
import torch

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.evaluation.sizes import Lots, sized
from edgewise.search import Ask, Space, answered, search
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import searcher
from rivals import Meter


def edgewise(
    meter: Meter, graph: ew.Graph, rng: np.random.Generator, parts: bool = False,
    shuffled: bool = False,
) -> None:  # fmt: skip
    """`Study.run`'s search: every mask sees all examples, as of small networks, or a part first.

    Where units are shuffled, what it takes for neighbours lies anywhere in the network. That is to
    a search of masks of a given size what a shift of the optimum is to one of any bits
    (arXiv:2510.26633): it takes away what was known before.
    """
    places = rng.permutation(meter.units) if shuffled else range(meter.units)
    space = Space(graph, ew.Budget(units=meter.units - meter.removed))
    lots = Lots([((torch.zeros(meter.examples, 1),), torch.zeros(meter.examples))])

    def answer(ask: Ask) -> list[Evaluation]:
        split = sized("search", ask.lots or range(lots.count), lots.count)
        rows, found = lots.rows(split), []
        for mask in ask.masks:
            losses = meter.measure([int(mask.bits[k]) for k in places], rows)
            each = np.full(meter.examples, np.nan, np.float32)
            each[rows] = losses
            loss = float(losses.mean(dtype=np.float64))
            found.append(Evaluation(str(mask), split, loss, samples=len(rows), each=each))
        return found

    seed, limit = int(rng.integers(2**31)), meter.limit / meter.examples
    steps = search(
        space,
        searching(searcher("auto")),
        seed=seed,
        limit=limit,
        lots=lots.sizes if parts else (),
    )
    answered(steps, answer)
