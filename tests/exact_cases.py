"""Small random graphs with a budget, rules and a surrogate, and their best by brute force."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

import edgewise as ew
from edgewise.graph.places import modules
from edgewise.graph.times import OperatorTimes
from edgewise.search import Space
from random_models import random_plan, write

KINDS = (("edge", "layer"), ("edge", "layer", "hidden", "heads", "channels"), ("raw",))
QUANTITIES = ("units", "params", "macs", "activation_bytes", "weight_bytes")
UNITS = 9


@dataclass(frozen=True)
class Case:
    """A problem; `masks` are all that respect the order of widths, `X` the same as an array."""

    seed: int
    space: Space
    model: Any
    masks: list[ew.Mask]
    X: np.ndarray

    @property
    def best(self) -> float | None:
        """The least prediction of a mask within the budget, None if there is no such mask."""
        values = self.model.predict_link(self.X)
        allowed = [v for v, m in zip(values, self.masks, strict=True) if self.allows(m)]
        return min(allowed, default=None)

    def allows(self, mask: ew.Mask) -> bool:
        """Whether a mask is within the budget and the limits, added up one by one."""
        names = [self.space.graph.units[unit].name for unit in mask.removed]
        limits = self.space.graph.limits
        kept = all(sum(x.weights.get(n, 0) for n in names) <= x.most + 1e-6 for x in limits)
        return kept and self.space.allows(mask)

    def least(self, quantity: str) -> float:
        """The least cost of any valid mask."""
        costs = [cost for m in self.masks if (cost := self.space.cost(m)) is not None]
        return min(getattr(cost, quantity) for cost in costs)


def random_graph(seed: int, units: int = UNITS) -> ew.Graph | None:
    """A random model's graph with at most so many units; None if it has fewer than two."""
    rng = random.Random(seed)
    model, args = write(random_plan(seed)).build(torch.float32)
    try:
        graph = ew.trace(model, args, granularity=KINDS[seed % 3], slices=4)
    except ew.errors.EdgewiseError:
        return None
    if len(graph.units) > units:
        names = {unit.name for unit in rng.sample(graph.units, units)}
        graph = graph.select(lambda unit: unit.name in names)
    return graph if len(graph.units) > 1 else None


def random_rules(graph: ew.Graph, kind: str, rng: random.Random) -> dict[str, Any]:
    """A rule of a kind for a random model, which may name nothing that there is."""
    kinds, paths = sorted({u.kind for u in graph.units}), sorted(modules(graph))
    key = rng.choice([*kinds, *paths, f"{rng.choice(kinds)}:{rng.choice(paths or ['*'])}"])
    return {
        "keep": {"keep": rng.choice(paths or ["*"])},
        "at_most": {"at_most": {key: rng.choice([0, 0.25, 0.5, 0.75])}},
        "at_least": {"at_least": {key: rng.randint(1, 4)}},
        "tie": {"tie": key},
        "alike": {"alike": rng.choice(["*", *(f"{kind}:*" for kind in kinds)])},
    }[kind]


def random_times(graph: ew.Graph, seed: int) -> OperatorTimes:
    """Times of operators drawn at random; some take none, or nothing of one kind."""
    rng = np.random.default_rng(seed)
    parts = rng.exponential(1e-4, (len(graph.vertices), 4)) * (rng.random((1, 4)) < 0.8)
    parts *= rng.random((len(graph.vertices), 1)) < 0.7
    unpruned = float(parts.sum()) * rng.uniform(1.0, 1.3) + 1e-6
    return OperatorTimes(graph, parts, unpruned, float(rng.uniform(0.3, 1.0)))


def nested_masks(graph: ew.Graph) -> list[ew.Mask]:
    every = itertools.product((0, 1), repeat=len(graph.units))
    masks = (graph.mask(bits=bits) for bits in every)
    return [mask for mask in masks if graph.nest(mask) == mask]


def surrogate(graph: ew.Graph, X: np.ndarray, seed: int) -> Any:
    """A surrogate of one of four kinds, fitted to losses drawn at random, which may fall."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(0.2, 0.5, X.shape[1])
    losses = np.exp(X @ slopes + 0.3 * rng.normal(size=len(X)))
    rows = rng.permutation(len(X))[:40]
    kinds = (
        ew.surrogates.PathSum(graph, saturate=False),
        ew.surrogates.Linear(),
        ew.surrogates.PathSum(graph, saturate=True),
        ew.surrogates.Degree2(),
    )
    model = kinds[seed // 3 % 4]
    return model.fit(X[rows], losses[rows] if seed % 5 else 1 / losses[rows])


def cases(count: int, timed: bool = False, rule: str = "") -> Iterator[Case]:
    """So many cases, with one to three limits each; all limit latency if they are `timed`.

    With a kind of rule, all have one, and are those that it leaves units of.
    """
    found = (_case(seed, timed, rule) for seed in itertools.count(1))
    return itertools.islice((case for case in found if case is not None), count)


@cache
def _case(seed: int, timed: bool, rule: str) -> Case | None:
    """The same for all tests of a process: its space remembers what all masks cost."""
    graph = random_graph(seed)
    if graph is None:
        return None
    rng = random.Random(seed)
    try:
        graph = ew.restrict(graph, **random_rules(graph, rule, rng)) if rule else graph
    except ew.errors.RuleError:
        return None
    masks = nested_masks(graph)
    X = graph.matrix(masks)
    limits = {q: rng.uniform(0.3, 1.0) for q in rng.sample(QUANTITIES, rng.choice([1, 1, 2, 3]))}
    times = None
    if timed:
        limits = dict(list(limits.items())[1:]) | {"latency": rng.uniform(0.3, 1.0)}
        times = random_times(graph, seed)
    space = Space(graph, ew.Budget(**limits), times=times)
    return Case(seed, space, surrogate(graph, X, seed), masks, X)
