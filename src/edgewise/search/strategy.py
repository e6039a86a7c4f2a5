"""Which masks to measure next, given those measured: a generator that knows nothing of storage.

A search is a pure function of its settings and of the results it is sent, which is why an
interrupted one continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BudgetError, ObjectiveError
from ..graph import Mask
from ..records import Evaluation
from .chain import chain, harm_of
from .descent import descend
from .proposals import Predictor, Region, Settings, feasible, propose
from .sampling import sample_at_budget
from .space import Space
from .stopping import Patience, hopeless

LEAST = 0.01  # of the unpruned loss: harm that the ranked mask is taken to do at least
SPREAD = 0.5  # of the importance of groups of widths, in nats
FitFunction = Callable[[Sequence[Evaluation], Space], Predictor]


@dataclass(frozen=True)
class Ask:
    """Masks to measure together, and what was expected of them (mean, deviation)."""

    phase: str
    origin: str
    masks: tuple[Mask, ...]
    expected: Mapping[Mask, tuple[float, float]] = field(default_factory=dict)


Questions = Generator[Ask, Sequence[Evaluation], None]


def answered(steps: Questions, answer: Callable[[Ask], Sequence[Evaluation]]) -> list[Evaluation]:
    """Answer what a search asks until it ends; all answers, in order."""
    found: list[Evaluation] = []
    answers: Sequence[Evaluation] | None = None
    while True:
        try:
            ask = next(steps) if answers is None else steps.send(answers)
        except StopIteration:
            return found
        answers = answer(ask)
        found.extend(answers)


def search(
    space: Space,
    fit: FitFunction,
    *,
    seed: int,
    limit: int,
    before: Sequence[Evaluation] = (),
    settings: Settings | None = None,
    patience: Patience | None = None,
) -> Questions:
    """Ask for evaluations until `limit` of them are there.

    First nothing and each unit alone is removed; widths are not tried one by one, but all in one
    ranking by importance. Then comes the mask of the units that are cheapest by themselves. A
    unit whose removal alone loses more than that whole mask is fatal and protected from then on.
    Where there are evaluations enough and no widths, units are then removed greedily (`chain`).
    Then come random masks at the budget, most of them around the mask of cheapest units (all of
    them where there are widths), then rounds of proposals: descent on a surrogate's optimistic
    prediction, some of them very optimistic.

    Args:
        space: graph and budget.
        fit: makes a surrogate of evaluations.
        seed: of everything random.
        limit: evaluations in all.
        before: evaluations of earlier runs, to start from.
        settings: see `Settings`.
        patience: ends the search early; None asks for all evaluations.

    Yields:
        Asks; send back the evaluations of each.

    Raises:
        ObjectiveError: the unpruned network itself cannot be measured.
    """
    settings = settings or Settings()
    rng = np.random.default_rng(seed)
    known: dict[str, Evaluation] = {e.mask: e for e in before if e.split == "search"}
    count = 0

    def ask(phase: str, origin: str, masks: Sequence[Mask], expected: Any = None) -> Ask | None:
        nonlocal count
        minimal = {space.minimal(mask): mask for mask in masks}
        expected = {small: expected[mask] for small, mask in minimal.items()} if expected else {}
        fresh = [m for m in minimal if str(m) not in known][: max(limit - count, 0)]
        count += len(fresh)
        return Ask(phase, origin, tuple(fresh), expected) if fresh else None

    def note(results: Sequence[Evaluation]) -> None:
        known.update((e.mask, e) for e in sorted(results, key=lambda e: e.mask))

    for phase, origin, masks in _opening(space, limit):
        if question := ask(phase, origin, masks):
            note((yield question))
        if origin == "unpruned":
            _check_unpruned(known[str(space.graph.empty)])
    chained = False
    ranked = ranked_pick(space)
    if ranked is not None and (question := ask("sampling", "ranking", [ranked])):
        note((yield question))
    if (pick := single_pick(space, known)) is not None:
        if question := ask("leave-one-out", "single pick", [pick]):
            note((yield question))
        space = space.protecting(fatal_units(space, known))
        most = round(settings.chain * (limit - count))
        for likely in _chain(space, known, len(pick.removed), most):
            chained = True
            if question := ask("greedy removal", "greedy", likely):
                note((yield question))
    share = 1.0 if space.graph.nested else settings.guided
    samples = settings.samples // ((4 if before else 1) * (2 if chained else 1))
    guided = _guided(space, known, round(samples * share), rng)
    sampled = guided + sample_at_budget(space, samples - len(guided), rng)
    if question := ask("sampling", "sampled", sampled):
        note((yield question))
    dry, calm, region = 0, 0, Region()
    while count < limit and dry < 3:
        model = fit(list(known.values()), space)
        round_rng = np.random.default_rng([seed, len(known)])
        masks = propose(space, model, known, settings, round_rng, region)
        if patience is not None:
            calm = calm + 1 if hopeless(space, model, known, masks, patience.noise) else 0
            if calm >= patience.rounds:
                return
        expected = _expected(space, model, masks)
        question = ask("proposals", "proposed", masks, expected)
        dry = dry + 1 if question is None else 0
        if question:
            least = _least(space, known)
            note((yield question))
            region.learn(_least(space, known) < least)


def _chain(
    space: Space, known: Mapping[str, Evaluation], removals: int, most: int
) -> Iterator[Sequence[Mask]]:
    """What a greedy removal asks for; nothing where there are widths or harm is unknown."""
    alone = None if space.graph.nested else damages(space, known)
    return iter(()) if alone is None else chain(space, known, alone, removals, most)


def _least(space: Space, known: Mapping[str, Evaluation]) -> float:
    return min((e.loss for e in feasible(space, known) if e.loss is not None), default=np.inf)


def _opening(space: Space, limit: int) -> list[tuple[str, str, list[Mask]]]:
    graph = space.graph
    valid = [mask for u in probes(space) if space.connected(mask := graph.mask([u]))]
    opening = [("leave-one-out", "unpruned", [graph.empty])]
    if len(valid) + 1 <= 0.75 * limit:
        opening.append(("leave-one-out", "leave-one-out", valid))
    return opening


def probes(space: Space) -> list[int]:
    """What is removed by itself first: each unit that is not a width."""
    return [u for u in space.free if u not in space.graph.group_of]


def _check_unpruned(evaluation: Evaluation) -> None:
    if not evaluation.ok:
        raise ObjectiveError(
            f"The unpruned network cannot be measured ({evaluation.status}): "
            f"{(evaluation.error or '').removesuffix('.')}. Check the loss, the metrics and the "
            "data on the model itself first."
        )


def damages(space: Space, evaluations: Mapping[str, Evaluation]) -> dict[int, float] | None:
    """What removing each unit alone adds to the loss (inf where it failed); None if unknown.

    The damage that the ranked mask does is shared out among all widths by importance.
    """
    base = evaluations.get(str(space.graph.empty))
    if base is None or base.loss is None:
        return None
    found: dict[int, float] = {}
    for unit in probes(space):
        mask = space.graph.mask([unit])
        measured = evaluations.get(str(mask))
        if not space.connected(mask):
            found[unit] = float("inf")
        elif measured is None:
            return None
        else:
            found[unit] = harm_of(measured, base.loss)
    return found | _width_damages(space, evaluations, base.loss)


def _width_damages(
    space: Space, evaluations: Mapping[str, Evaluation], base: float
) -> dict[int, float]:
    shares = {u: max(space.graph.units[u].importance, 0.0) for u in space.graph.group_of}
    ranked = ranked_pick(space)
    measured = evaluations.get(str(ranked)) if ranked else None
    if ranked is None or measured is None or measured.loss is None:
        return shares
    gone = sum(shares[u] for u in ranked.removed if u in shares)
    scale = max(measured.loss - base, LEAST * abs(base)) / gone if gone > 0 else 1.0
    return {u: scale * share for u, share in shares.items() if u not in space.protected}


def single_pick(space: Space, evaluations: Mapping[str, Evaluation]) -> Mask | None:
    """The mask at the budget of the least sum of leave-one-out damages, interactions ignored."""
    alone = damages(space, evaluations)
    if alone is None:
        return None
    worst = max((d for d in alone.values() if np.isfinite(d)), default=0.0)
    weights = np.zeros(len(space.graph.units))
    for unit, damage in alone.items():
        weights[unit] = damage if np.isfinite(damage) else 10 * abs(worst) + 1.0
    return cheapest(space, weights)


def cheapest(space: Space, weights: NDArray[np.float64]) -> Mask | None:
    """The mask at the budget of the least sum of weights [n_units], or one near to it."""
    order = sorted(space.free, key=lambda u: space.price(u, float(weights[u])))
    try:
        start = space.shrink(order)
    except BudgetError:
        start = space.reachable()
    rng = np.random.default_rng(0)  # matters only where there are too many moves to try all
    return descend(space, lambda X: np.asarray(X @ weights), start, rng=rng)


def ranked_pick(space: Space) -> Mask | None:
    """The mask of the least important widths, in one ranking of all; None without widths.

    It is at the budget, or as near to it as half of every width comes.
    """
    units, free = space.graph.units, set(space.free)
    widths = [u for u in space.free if u in space.graph.group_of]
    order = sorted(widths, key=lambda u: space.price(u, units[u].importance))
    try:
        return space.shrink(order) if widths else None
    except BudgetError:
        halves = [u for g in space.graph.nested if free.issuperset(g) for u in g[: len(g) // 2]]
        mask = space.graph.mask(halves)
        return mask if halves and space.connected(mask) else None


def _guided(
    space: Space, evaluations: Mapping[str, Evaluation], count: int, rng: np.random.Generator
) -> list[Mask]:
    """Masks that would be the single pick if the damages were others, as interactions make them.

    The widths of one group err together, since what was mistaken of one is so of the next.
    """
    alone = damages(space, evaluations)
    if alone is None:
        return []
    found: dict[Mask, None] = {}
    finite = [d for d in alone.values() if np.isfinite(d)]
    if not finite:
        return []
    floor = float(np.median(finite)) * 0.1
    turns = cycle((True, False) if space.graph.nested else (True,))  # else only widths go
    for _, all_units in zip(range(4 * count), turns, strict=False):
        noise = dict(zip(space.free, np.exp(rng.normal(size=len(space.free))), strict=True))
        for group in space.graph.nested:
            noise |= dict.fromkeys(group, float(np.exp(SPREAD * rng.normal())))
        rank = {u: max(alone[u], 0.0 if u in space.graph.group_of else floor) for u in space.free}
        units = [u for u in space.free if all_units or u in space.graph.group_of]
        order = sorted(units, key=lambda u: space.price(u, rank[u] * noise[u]))
        try:
            found[space.shrink(order)] = None
        except BudgetError:
            continue
        if len(found) == count:
            break
    return list(found)


def fatal_units(space: Space, evaluations: Mapping[str, Evaluation]) -> frozenset[int]:
    """Units whose removal alone loses more than the whole single-pick mask does.

    A mask with such a unit could only be better than the single pick if other removals repaired
    the damage. Units that cannot be removed alone are fatal too.
    """
    pick = single_pick(space, evaluations)
    alone = damages(space, evaluations)
    if pick is None or alone is None:
        return space.protected
    whole, base = evaluations.get(str(pick)), evaluations[str(space.graph.empty)]
    if whole is None or whole.loss is None or base.loss is None:
        return space.protected
    bound = whole.loss - base.loss
    fatal = {
        u for u, damage in alone.items()
        if damage > bound and not pick.bits[u] and u not in space.graph.group_of
    }  # fmt: skip
    return space.protected.union(fatal)


def _expected(space: Space, model: Any, masks: Sequence[Mask]) -> dict[Mask, tuple[float, float]]:
    """What the surrogate predicts of masks, in original units."""
    if not masks:
        return {}
    mean, std = model.predict(space.graph.matrix(masks), return_std=True)
    return {m: (float(a), float(b)) for m, a, b in zip(masks, mean, std, strict=True)}
