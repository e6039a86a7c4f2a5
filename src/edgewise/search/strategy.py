"""Which masks to measure next, given those measured: a generator that knows nothing of storage.

A search is a pure function of its settings and of the results it is sent, which is why an
interrupted one continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import BudgetError, ObjectiveError
from ..graph import Mask
from ..records import Evaluation
from .descent import Array, descend
from .sampling import sample_at_budget
from .space import Space


class Predictor(Protocol):
    """A fitted surrogate: mean and standard deviation on its link scale."""

    def predict_link(self, X: Array, return_std: bool = False) -> Any: ...


FitFunction = Callable[[Sequence[Evaluation], Space], Predictor]


@dataclass(frozen=True)
class Ask:
    """Masks to measure together, and what was expected of them (mean, deviation)."""

    phase: str
    origin: str
    masks: tuple[Mask, ...]
    expected: Mapping[Mask, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How a search spends its evaluations.

    Args:
        samples: random masks at the budget before the first surrogate.
        guided: share of them drawn around the single pick instead of uniformly.
        round: masks proposed at a time.
        explore: share of a round that is proposed with great optimism.
        starts: descents for each proposal.
        optimism: deviations that a proposal subtracts from the predicted mean, as the scale of a
            half-normal draw.
        boldness: deviations that an exploring proposal subtracts.
    """

    samples: int = 20
    guided: float = 0.75
    round: int = 4
    explore: float = 0.2
    starts: int = 6
    optimism: float = 0.5
    boldness: float = 2.0


def search(
    space: Space,
    fit: FitFunction,
    *,
    seed: int,
    limit: int,
    before: Sequence[Evaluation] = (),
    settings: Settings | None = None,
) -> Generator[Ask, Sequence[Evaluation], None]:
    """Ask for evaluations until `limit` of them are there.

    First nothing and each unit alone is removed, then the mask of the units that are cheapest by
    themselves. A unit whose removal alone loses more than that whole mask is fatal and protected
    from then on. Where there are widths, one ranking of them all by importance is measured too.
    Then come random masks at the budget, most of them around the mask of cheapest units, then
    rounds of proposals: descent on a surrogate's optimistic prediction, some of them very
    optimistic.

    Args:
        space: graph and budget.
        fit: makes a surrogate of evaluations.
        seed: of everything random.
        limit: evaluations in all.
        before: evaluations of earlier runs, to start from.
        settings: see `Settings`.

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
    if (pick := single_pick(space, known)) is not None:
        if question := ask("leave-one-out", "single pick", [pick]):
            note((yield question))
        space = space.protecting(fatal_units(space, known))
    ranked = ranked_pick(space)
    if ranked is not None and (question := ask("sampling", "ranking", [ranked])):
        note((yield question))
    guided = _around_single_pick(space, known, round(settings.samples * settings.guided), rng)
    sampled = guided + sample_at_budget(space, settings.samples - len(guided), rng)
    if question := ask("sampling", "sampled", sampled):
        note((yield question))
    dry = 0
    while count < limit and dry < 3:
        model = fit(list(known.values()), space)
        round_rng = np.random.default_rng([seed, len(known)])
        masks = propose(space, model, known, settings, round_rng)
        expected = _expected(space, model, masks)
        question = ask("proposals", "proposed", masks, expected)
        dry = dry + 1 if question is None else 0
        if question:
            note((yield question))


def _opening(space: Space, limit: int) -> list[tuple[str, str, list[Mask]]]:
    graph = space.graph
    valid = [mask for mask in map(graph.mask, probes(space)) if space.connected(mask)]
    opening = [("leave-one-out", "unpruned", [graph.empty])]
    if len(valid) + 1 <= 0.75 * limit:
        opening.append(("leave-one-out", "leave-one-out", valid))
    return opening


def probes(space: Space) -> list[tuple[int, ...]]:
    """What is removed by itself first: each unit, of each group of widths its lesser half."""
    single = [(u,) for u in space.free if u not in space.graph.group_of]
    free = set(space.free)
    halves = [group[: (len(group) + 1) // 2] for group in space.graph.nested]
    return [*single, *(half for half in halves if free.issuperset(half))]


def _check_unpruned(evaluation: Evaluation) -> None:
    if not evaluation.ok:
        raise ObjectiveError(
            f"The unpruned network cannot be measured ({evaluation.status}): {evaluation.error} "
            "Check the loss, the metrics and the data on the model itself first."
        )


def damages(space: Space, evaluations: Mapping[str, Evaluation]) -> dict[int, float] | None:
    """What removing each unit alone adds to the loss (inf where it failed); None if unknown."""
    base = evaluations.get(str(space.graph.empty))
    if base is None or base.loss is None:
        return None
    probed: dict[tuple[int, ...], float] = {}
    for units in probes(space):
        mask = space.graph.mask(units)
        measured = evaluations.get(str(mask))
        if not space.connected(mask):
            probed[units] = float("inf")
        elif measured is None:
            return None
        else:
            probed[units] = float("inf") if measured.loss is None else measured.loss - base.loss
    typical = float(np.median([abs(d) for d in probed.values() if np.isfinite(d)] or [0.0]))
    found: dict[int, float] = {}
    for units, damage in probed.items():
        found |= _shared_out(space, units, damage, typical / 10)
    return found


def _shared_out(
    space: Space, probed: tuple[int, ...], damage: float, least: float
) -> dict[int, float]:
    """A measured damage as that of each unit: of widths by their importance, all of the group.

    That half a width does no harm does not mean that the other half would do none, which is why
    widths do `least` damage at least.
    """
    group = space.graph.group_of.get(probed[0])
    if group is None:
        return {probed[0]: damage}
    damage, units = max(damage, least), space.graph.units
    share = [max(units[u].importance, 0.0) for u in group]
    known = sum(share[: len(probed)])
    if known <= 0:  # without scores: as if the damage grew with the square of what is cut
        share, known = [2.0 * i + 1.0 for i in range(len(group))], float(len(probed) ** 2)
    return {u: damage * s / known for u, s in zip(group, share, strict=True)}


def single_pick(space: Space, evaluations: Mapping[str, Evaluation]) -> Mask | None:
    """The mask at the budget of the least sum of leave-one-out damages, interactions ignored."""
    alone = damages(space, evaluations)
    if alone is None:
        return None
    worst = max((d for d in alone.values() if np.isfinite(d)), default=0.0)
    weights = np.zeros(len(space.graph.units))
    for unit, damage in alone.items():
        weights[unit] = damage if np.isfinite(damage) else 10 * abs(worst) + 1.0
    order = sorted(space.free, key=lambda u: weights[u] / max(space.saving(u), 1e-12))
    try:
        start = space.shrink(order)
    except BudgetError:
        start = space.reachable()
    rng = np.random.default_rng(0)  # matters only where there are too many moves to try all
    return descend(space, lambda X: np.asarray(X @ weights), start, rng=rng)


def ranked_pick(space: Space) -> Mask | None:
    """The mask at the budget of the least important widths, in one ranking of all; None without."""
    units = space.graph.units
    widths = [u for u in space.free if u in space.graph.group_of]
    order = sorted(widths, key=lambda u: units[u].importance / max(space.saving(u), 1e-12))
    try:
        return space.shrink(order) if widths else None
    except BudgetError:
        return None


def _around_single_pick(
    space: Space, evaluations: Mapping[str, Evaluation], count: int, rng: np.random.Generator
) -> list[Mask]:
    """Masks that would be the single pick if the damages were others, as interactions make them."""
    alone = damages(space, evaluations)
    if alone is None:
        return []
    found: dict[Mask, None] = {}
    finite = [d for d in alone.values() if np.isfinite(d)]
    if not finite:
        return []
    floor = float(np.median(finite)) * 0.1
    for _ in range(4 * count):
        noise = np.exp(rng.normal(size=len(space.free)))
        rank = {u: max(alone[u], floor) * n for u, n in zip(space.free, noise, strict=True)}
        order = sorted(space.free, key=lambda u: rank[u] / max(space.saving(u), 1e-12))
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


def propose(
    space: Space,
    model: Predictor,
    known: Mapping[str, Evaluation],
    settings: Settings,
    rng: np.random.Generator,
) -> list[Mask]:
    """The next round of masks."""
    best = sorted(feasible(space, known), key=lambda e: e.loss or 0.0)
    seen = {space.network(space.graph.mask(bits=bits)) for bits in known}
    chosen: list[Mask] = []
    explore = round(settings.round * settings.explore)
    for number in range(settings.round):
        bold = number < explore
        optimism = settings.boldness if bold else settings.optimism * abs(float(rng.normal()))
        mask = _propose_one(space, model, best, frozenset(seen), settings.starts, optimism, rng)
        if mask is not None:
            chosen.append(mask)
            seen.add(space.network(mask))
    return chosen or sample_at_budget(space, settings.round, rng, frozenset(seen))


def feasible(space: Space, known: Mapping[str, Evaluation]) -> list[Evaluation]:
    """The measured masks that are within the budget."""
    return [e for e in known.values() if e.ok and space.allows(space.graph.mask(bits=e.mask))]


def _propose_one(
    space: Space, model: Predictor, best: Sequence[Evaluation], seen: frozenset[int],
    starts: int, optimism: float, rng: np.random.Generator,
) -> Mask | None:  # fmt: skip
    """The unseen mask that descent on an optimistic prediction finds from several starts."""

    def score(X: Array) -> Array:
        mean, std = model.predict_link(X, return_std=True)
        return np.asarray(mean - optimism * std)

    top = [space.graph.mask(bits=e.mask) for e in best[:5]]
    picked = [top[int(rng.integers(len(top)))]] if top else []
    picked += sample_at_budget(space, starts - len(picked), rng)
    ends = [descend(space, score, start, rng=rng, avoid=seen) for start in picked]
    found = [mask for mask in ends if mask is not None]
    if not found:
        return None
    values = score(space.graph.matrix(found))
    return found[int(np.argmin(values))]


def _expected(space: Space, model: Any, masks: Sequence[Mask]) -> dict[Mask, tuple[float, float]]:
    """What the surrogate predicts of masks, in original units."""
    if not masks:
        return {}
    mean, std = model.predict(space.graph.matrix(masks), return_std=True)
    return {m: (float(a), float(b)) for m, a, b in zip(masks, mean, std, strict=True)}
