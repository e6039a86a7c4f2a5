"""edgewise's own search on a meter."""

import numpy as np

import edgewise as ew
from edgewise.evaluation.records import Evaluation
from edgewise.search import Ask, Space, answered, search
from edgewise.study.fitting import searching
from edgewise.surrogates.searcher import searcher
from rivals import Meter


def edgewise(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """`Study.run`'s search with its default settings, answered by a meter."""
    space = Space(graph, ew.Budget(units=meter.units - meter.removed))

    def answer(ask: Ask) -> list[Evaluation]:
        found = []
        for mask in ask.masks:
            losses = meter.measure([int(bit) for bit in mask.bits])
            found.append(
                Evaluation(str(mask), "search", float(losses.mean()), samples=meter.examples)
            )
        return found

    seed, limit = int(rng.integers(2**31)), meter.limit // meter.examples
    answered(search(space, searching(searcher("auto"), graph), seed=seed, limit=limit), answer)
