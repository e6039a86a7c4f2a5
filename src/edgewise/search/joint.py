"""Which masks to measure next, given those measured: a generator that knows nothing of storage.

A search is a pure function of its settings and of the results it is sent, which is why an
interrupted one continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from ..errors import BudgetError, ObjectiveError
from ..evaluation.records import Evaluation
from ..graph.graph import Graph, Mask
from .asks import Ask, FitFunction, Questions
from .lazy_greedy import chain
from .picks import damages, fatal_units, probes, ranked_pick, single_pick
from .proposals import Region, Settings, feasible, propose
from .sampling import sample_at_budget
from .space import Space
from .stopping import Patience, hopeless

SPREAD = 0.5  # of the importance of groups of widths, in nats


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
    # Longer than others, since it is the order of the questions that this is about: phases share
    # what is known, how much may still be asked, and the units that turned out to be fatal.
    settings = settings or Settings()
    rng = np.random.default_rng(seed)
    known = space.by_mask(e for e in before if e.split == "search")
    count = 0

    def ask(phase: str, origin: str, masks: Sequence[Mask], expected: Any = None) -> Ask | None:
        nonlocal count
        minimal = {space.minimal(mask): mask for mask in masks}
        expected = {small: expected[mask] for small, mask in minimal.items()} if expected else {}
        fresh = [m for m in minimal if m not in known][: max(limit - count, 0)]
        count += len(fresh)
        return Ask(phase, origin, tuple(fresh), expected) if fresh else None

    def note(results: Sequence[Evaluation]) -> None:
        known.update(space.by_mask(sorted(results, key=lambda e: e.mask)))

    for phase, origin, masks in _opening(space, limit):
        if question := ask(phase, origin, masks):
            note((yield question))
        if origin == "unpruned":
            _check_unpruned(known[space.graph.empty], space.graph)
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
    space: Space, known: Mapping[Mask, Evaluation], removals: int, most: int
) -> Iterator[Sequence[Mask]]:
    """What a greedy removal asks for; nothing where there are widths or harm is unknown."""
    alone = None if space.graph.nested else damages(space, known)
    return iter(()) if alone is None else chain(space, known, alone, removals, most)


def _least(space: Space, known: Mapping[Mask, Evaluation]) -> float:
    return min(feasible(space, known).values(), default=np.inf)


def _opening(space: Space, limit: int) -> list[tuple[str, str, list[Mask]]]:
    graph = space.graph
    valid = [mask for u in probes(space) if space.connected(mask := graph.mask([u]))]
    opening = [("leave-one-out", "unpruned", [graph.empty])]
    if len(valid) + 1 <= 0.75 * limit:
        opening.append(("leave-one-out", "leave-one-out", valid))
    return opening


def _check_unpruned(evaluation: Evaluation, graph: Graph) -> None:
    if not evaluation.ok:
        inputs = [v for v in graph.vertices if v.op == "input" and v.shape is not None]
        traced = ", ".join(f"{v.name}: {v.dtype} of {v.shape}" for v in inputs)
        raise ObjectiveError(
            f"The unpruned network cannot be measured ({evaluation.status}): "
            f"{(evaluation.error or '').removesuffix('.')}. Check the loss, the metrics and the "
            f"data on the model itself first. For one example it was traced with {traced}."
        )


def _guided(
    space: Space, evaluations: Mapping[Mask, Evaluation], count: int, rng: np.random.Generator
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


def _expected(space: Space, model: Any, masks: Sequence[Mask]) -> dict[Mask, tuple[float, float]]:
    """What the surrogate predicts of masks, in original units."""
    if not masks:
        return {}
    mean, std = model.predict(space.graph.matrix(masks), return_std=True)
    return {m: (float(a), float(b)) for m, a, b in zip(masks, mean, std, strict=True)}
