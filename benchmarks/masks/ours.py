"""edgewise's own search on a meter."""

import numpy as np

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.evaluation.sizes import LOTS, sized
from edgewise.search import Ask, Space, answered, search
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import searcher
from rivals import Meter


def edgewise(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """`Study.run`'s search with its default settings, answered by a meter."""
    space = Space(graph, ew.Budget(units=meter.units - meter.removed))
    lot = np.arange(meter.examples) % LOTS

    def answer(ask: Ask) -> list[Evaluation]:
        lots = ask.lots or tuple(range(LOTS))
        seen, split = np.isin(lot, lots), sized("search", lots, LOTS)
        found = []
        for mask in ask.masks:
            losses = meter.measure(mask.bits, np.flatnonzero(seen))
            each = np.full(meter.examples, np.nan, np.float32)
            each[seen] = losses
            samples, loss = int(seen.sum()), float(losses.mean())
            found.append(Evaluation(str(mask), split, loss, samples=samples, each=each))
        return found

    seed, limit = int(rng.integers(2**31)), meter.limit / meter.examples
    fit, lots = searching(searcher("auto"), graph), np.bincount(lot).tolist()
    answered(search(space, fit, seed=seed, limit=limit, lots=lots), answer)
