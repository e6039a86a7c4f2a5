"""What F-1 measures: masks of a trained DAG, as published and soundly; kept on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.nn import functional as F

import edgewise as ew
from dags import Masked, Network
from digits import Batch

HALF, TEST = 0.5, 500  # as published: the chance of an edge to go, masks to test on
SHARE, FRESH = 0.15, 200  # soundly: the share of the edges that go, masks to test on


@dataclass(frozen=True)
class Measured:
    """Masks [n, n_edges] (1 = removed) and their losses [n]."""

    masks: np.ndarray
    losses: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> "Measured":
        return Measured(self.masks[rows], self.losses[rows])


def published(
    network: Network, batch: Batch, path: Path, rng: np.random.Generator
) -> tuple[Measured, Measured]:
    """(nothing, everything and every edge alone; 500 masks of half of the edges), one split."""
    edges = len(network.dag.edges)
    masks = np.vstack([np.zeros(edges), np.ones(edges), np.eye(edges), _halves(edges, rng)])
    if not path.exists():
        run, target = Masked(network, batch[0], leak=True), batch[1]
        losses = [float(F.cross_entropy(run(mask), target)) for mask in masks]
        np.savez(path, losses=np.array(losses))
    found = Measured(masks, np.load(path)["losses"])
    return found[: edges + 2], found[edges + 2 :]


def _halves(edges: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct masks of edges removed with probability one half each, none of them trivial."""
    found: dict[bytes, np.ndarray] = {}
    while len(found) < TEST:
        mask = (rng.random(edges) < HALF).astype(float)
        if 1 < mask.sum() < edges:
            found.setdefault(mask.tobytes(), mask)
    return np.array(list(found.values()))


def connected(graph: ew.Graph, masks: np.ndarray) -> np.ndarray:
    """[n] whether each mask leaves a path from the image to the logits."""
    return np.array([ew.liveness(graph, _mask(graph, row)).connected for row in masks])


def _mask(graph: ew.Graph, row: np.ndarray) -> ew.Mask:
    return graph.mask(bits=row.astype(int))


def sound(study: ew.Study, rng: np.random.Generator) -> tuple[Measured, Measured]:
    """|E| + 1 connected masks on the first split, and 200 others on the second, unseen one.

    Training masks are: nothing, every edge alone (once for edges whose removal leaves the same
    network), and random ones at the target for what is left of |E| + 1 evaluations.
    """
    graph = study.graph
    removed = round(SHARE * len(graph.units))
    singles = distinct_singles(graph)
    more = len(graph.units) - len(singles)
    drawn = ew.sample_masks(graph, more + FRESH, removed=removed, rng=rng)
    train, test = [graph.empty, *singles, *drawn[:more]], drawn[more:]
    return _measured(study, train, "search"), _measured(study, test, "verify")


def distinct_singles(graph: ew.Graph) -> list[ew.Mask]:
    """One removed edge each, every network that comes of it once; connected ones only."""
    found: dict[object, ew.Mask] = {}
    for unit in range(len(graph.units)):
        alive = ew.liveness(graph, graph.mask([unit]))
        if alive.connected:
            found.setdefault(alive.signature, graph.mask([unit]))
    return list(found.values())


def _measured(study: ew.Study, masks: list[ew.Mask], split: str) -> Measured:
    records = study.evaluate(masks, split)
    return Measured(study.graph.matrix(masks), np.array([record.loss for record in records]))


def study_of(graph: ew.Graph, first: Batch, second: Batch, storage: str, name: str) -> ew.Study:
    """Cross-entropy on two splits."""
    (x, y), (fresh, fresh_y) = first, second
    objective = ew.Objective([(x, y)], loss="cross_entropy", verify=[(fresh, fresh_y)])
    return ew.Study(graph, objective, storage, name)
