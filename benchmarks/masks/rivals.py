"""Ways to look for a mask, each a function of a meter: it asks until the examples are spent.

All remove the same number of units. Optimisers of continuous or boolean variables get one number
in [0, 1] a unit, and the units of the largest are removed, so that every proposal is at the
budget. Only masks at the budget measured on all examples count.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

import edgewise as ew

Mask = tuple[int, ...]
TRIALS = 2  # of other people's optimisers an evaluation: to ask again for a mask is free


class Spent(Exception):
    """No examples are left."""


class Meter:
    """Answers from a table, counts examples, and keeps the best whole mask after each."""

    def __init__(
        self, losses: Callable[[Mask], np.ndarray], units: int, removed: int, limit: float
    ):
        self.answer, self.units, self.removed = losses, units, removed
        self.examples = len(losses((0,) * units))
        self.limit = round(limit * self.examples)
        self.spent = 0
        self.seen: dict[Mask, set[int]] = {}
        self.best = np.inf
        self.curve: list[tuple[float, float]] = []  # full evaluations spent, best loss

    def measure(self, mask: Sequence[int], rows: Sequence[int] | None = None) -> np.ndarray:
        """The losses of these examples (of all); what was paid for once is free again."""
        key = tuple(int(bit) for bit in mask)
        wanted = range(self.examples) if rows is None else [int(row) for row in rows]
        seen = self.seen.setdefault(key, set())
        fresh = set(wanted) - seen
        if self.spent + len(fresh) > self.limit:
            raise Spent
        self.spent += len(fresh)
        seen |= fresh
        losses = self.answer(key)
        if sum(key) == self.removed and len(seen) == self.examples and losses.mean() < self.best:
            self.best = float(losses.mean())
            self.curve.append((self.spent / self.examples, self.best))
        return losses[list(wanted)]

    def loss(self, mask: Sequence[int]) -> float:
        """The mean loss of all examples."""
        return float(self.measure(mask).mean())

    def largest(self, keys: np.ndarray) -> Mask:
        """The mask that removes the units of the largest numbers [units]."""
        bits = np.zeros(self.units, int)
        bits[np.argsort(-np.asarray(keys), kind="stable")[: self.removed]] = 1
        return tuple(bits.tolist())


def at_random(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """Uniform masks at the budget."""
    for _ in range(100 * meter.limit // meter.examples):
        meter.loss(meter.largest(rng.random(meter.units)))


def single(meter: Meter) -> np.ndarray:
    """What the removal of each unit alone adds [units]."""
    base = meter.loss((0,) * meter.units)
    return np.array([meter.loss(row) for row in np.eye(meter.units, dtype=int)]) - base


def leave_one_out(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """The mask of the least sum of single damages."""
    meter.loss(meter.largest(-single(meter)))


def greedy(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """One unit after the other, on as many examples as let it end (as SLEB, 2024, does)."""
    steps = sum(meter.units - done for done in range(meter.removed))
    share = min((meter.limit / meter.examples - 1) / steps, 1.0)
    rows = rng.permutation(meter.examples)[: max(int(share * meter.examples), 1)]
    mask = np.zeros(meter.units, int)
    for _ in range(meter.removed):
        tried = {}
        for unit in np.flatnonzero(mask == 0):
            mask[unit] = 1
            tried[unit] = float(meter.measure(mask, rows).mean())
            mask[unit] = 0
        mask[min(tried, key=tried.__getitem__)] = 1
    meter.loss(mask)


def evolution(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """EvoPress (Sieberling et al., 2024): 16 mutations on a quarter, 4 on half, 1 on everything."""
    parent = meter.largest(rng.random(meter.units))
    best = meter.loss(parent)
    while True:
        rows = rng.permutation(meter.examples)
        children = [_mutated(parent, rng) for _ in range(16)]
        for share, left in ((0.25, 4), (0.5, 1)):
            some = rows[: int(share * len(rows))]
            scores = [meter.measure(child, some).mean() for child in children]
            children = [children[i] for i in np.argsort(scores)[:left]]
        loss = meter.loss(children[0])
        if loss < best:
            parent, best = children[0], loss


def _mutated(parent: Mask, rng: np.random.Generator) -> Mask:
    bits = np.array(parent)
    count = int(min(rng.integers(1, 4, 2)))
    gone = rng.choice(np.flatnonzero(bits), min(count, bits.sum()), replace=False)
    come = rng.choice(np.flatnonzero(bits == 0), len(gone), replace=False)
    bits[gone], bits[come] = 0, 1
    return tuple(bits.tolist())


def optuna_with(sampler: str) -> Callable[[Meter, ew.Graph, np.random.Generator], None]:
    """A sampler of Optuna over one number a unit."""

    def run(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        made = getattr(optuna.samplers, sampler)(seed=int(rng.integers(2**31)))
        study = optuna.create_study(sampler=made)
        for _ in range(TRIALS * meter.limit // meter.examples):
            trial = study.ask()
            keys = [trial.suggest_float(str(u), 0, 1) for u in range(meter.units)]
            study.tell(trial, meter.loss(meter.largest(np.array(keys))))

    return run


def smac(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """SMAC3's facade for combinatorial problems (a random forest) over one number a unit."""
    import logging
    import tempfile

    from ConfigSpace import ConfigurationSpace
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.runhistory.dataclasses import TrialValue

    space = ConfigurationSpace({f"u{u:03}": (0.0, 1.0) for u in range(meter.units)})
    seed = int(rng.integers(2**31))
    trials = TRIALS * meter.limit // meter.examples
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space, n_trials=trials, seed=seed, deterministic=True, output_directory=folder
        )
        optimiser = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, logging_level=logging.ERROR, overwrite=True
        )
        for _ in range(trials):
            info = optimiser.ask()
            keys = np.array([info.config[f"u{u:03}"] for u in range(meter.units)])
            optimiser.tell(info, TrialValue(cost=meter.loss(meter.largest(keys))))


def botorch(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """BoTorch: a Gaussian process on the bits, log expected improvement by exchanges of units."""
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    warnings.filterwarnings("ignore")
    masks = [meter.largest(rng.random(meter.units)) for _ in range(16)]
    losses = [meter.loss(mask) for mask in masks]
    while True:
        X = torch.tensor(masks, dtype=torch.float64)
        y = -torch.tensor(losses, dtype=torch.float64).log()[:, None]
        model = SingleTaskGP(X, y, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        gain = LogExpectedImprovement(model, best_f=y.max())
        starts = [masks[i] for i in np.argsort(losses)[:3]]
        starts.append(meter.largest(rng.random(meter.units)))
        found = max((_climbed(gain, start, set(masks)) for start in starts), key=lambda f: f[0])
        masks.append(found[1])
        losses.append(meter.loss(found[1]))


def _climbed(gain, start: Mask, seen: set[Mask]) -> tuple[float, Mask]:  # type: ignore[no-untyped-def]
    """The best exchange again and again; a mask that was measured is worth nothing."""
    import torch

    best, here = -np.inf, start
    while True:
        gone, kept = (np.flatnonzero(np.array(here) == bit) for bit in (1, 0))
        near = np.repeat(np.array(here)[None], len(gone) * len(kept), 0)
        pairs = np.array([(a, b) for a in gone for b in kept])
        near[np.arange(len(near)), pairs[:, 0]] = 0
        near[np.arange(len(near)), pairs[:, 1]] = 1
        near = near[[tuple(row) not in seen for row in near.tolist()]]
        with torch.no_grad():
            values = gain(torch.tensor(near, dtype=torch.float64)[:, None]).numpy()
        top = int(values.argmax())
        if values[top] <= best:
            return best, here
        best, here = float(values[top]), tuple(near[top].tolist())


def shapley(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
    """Shapley values by a network fitted to masks of every size (as CoopGame, 2022)."""
    masks = [np.zeros(meter.units, int)]
    losses = [meter.loss(masks[0])]
    count = meter.limit // meter.examples - 11
    for _ in range(count):
        bits = np.zeros(meter.units, int)
        size = int(rng.integers(1, 2 * meter.removed + 1))
        bits[rng.choice(meter.units, min(size, meter.units), replace=False)] = 1
        masks.append(bits)
        losses.append(meter.loss(bits))
    model = ew.surrogates.FCN().fit(np.array(masks), np.array(losses))
    values = np.zeros(meter.units)
    for _ in range(200):
        order = rng.permutation(meter.units)
        path = np.tril(np.ones((meter.units, meter.units), int))
        steps = np.zeros((meter.units + 1, meter.units), int)
        steps[1:, order] = path
        values[order] += np.diff(np.log(model.predict(steps)))
    meter.loss(meter.largest(-values))
    order = np.argsort(values)
    for offset in range(10):  # the next ones in the order of their values
        bits = np.zeros(meter.units, int)
        bits[order[: meter.removed - 1]] = 1
        bits[order[min(meter.removed + offset, meter.units - 1)]] = 1
        meter.loss(bits)


def published(name: str) -> Callable[[Meter, ew.Graph, np.random.Generator], None]:
    """Single removals and random masks at the budget, the surrogate's best ten measured."""

    def run(meter: Meter, graph: ew.Graph, rng: np.random.Generator) -> None:
        single(meter)
        while meter.spent + 10 * meter.examples < meter.limit:
            meter.loss(meter.largest(rng.random(meter.units)))
        masks = [mask for mask, seen in meter.seen.items() if len(seen) == meter.examples]
        losses = [float(meter.answer(mask).mean()) for mask in masks]
        model = getattr(ew.surrogates, name)(graph).fit(np.array(masks), np.array(losses))
        starts = [np.array(meter.largest(rng.random(meter.units))) for _ in range(30)]
        found = {_descended(model.predict, start): None for start in starts}
        order = np.argsort(model.predict(np.array(list(found))))
        for place in order:
            meter.loss(list(found)[place])

    return run


def _descended(predict: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> Mask:
    """The best exchange again and again."""
    here, best = start, float(predict(start[None])[0])
    while True:
        gone, kept = np.flatnonzero(here == 1), np.flatnonzero(here == 0)
        pairs = np.array([(a, b) for a in gone for b in kept])
        near = np.repeat(here[None], len(pairs), 0)
        near[np.arange(len(near)), pairs[:, 0]] = 0
        near[np.arange(len(near)), pairs[:, 1]] = 1
        values = predict(near)
        if values.min() >= best - 1e-12:
            return tuple(here.tolist())
        here, best = near[int(values.argmin())], float(values.min())


RIVALS = {
    "random": at_random,
    "leave-one-out": leave_one_out,
    "greedy": greedy,
    "evolution": evolution,
    "Optuna TPE": optuna_with("TPESampler"),
    "Optuna GP": optuna_with("GPSampler"),
    "SMAC": smac,
    "BoTorch": botorch,
    "Shapley": shapley,
    "path sum": published("PathSum"),
    "cross gamma": published("CrossGamma"),
}
