"""Which masks to measure next, given those measured: a generator that knows nothing of storage.

A search is a pure function of its settings and of the results it is sent, which is why an
interrupted one continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from ..errors import BudgetError, ObjectiveError
from ..evaluation.records import Evaluation
from ..graph.graph import Graph, Mask
from .asks import Ask, FitFunction, Questions
from .known import ALIKE, Known
from .picks import damages, fatal_units, probes, ranked_pick, single_pick
from .proposals import Region, Settings, feasible, propose
from .sampling import sample_at_budget
from .space import Space
from .stopping import Patience, hopeless
from .worth import hopeful, parts_pay

SPREAD = 0.5  # of the importance of groups of widths, in nats
Lots = tuple[int, ...]
Steps = Generator[Ask, Sequence[Evaluation], bool]


def search(
    space: Space,
    fit: FitFunction,
    *,
    seed: int,
    limit: float,
    before: Sequence[Evaluation] = (),
    settings: Settings | None = None,
    patience: Patience | None = None,
    lots: Sequence[int] = (),
    alike: float = ALIKE,
    picks: Callable[[], Sequence[Mask]] = tuple,
) -> Questions:
    """Ask for evaluations until `limit` of them are spent.

    First nothing and each unit alone is removed; widths are not tried one by one, but all in one
    ranking by importance. Then come the masks that scores of one pass choose, and that of the
    units that are cheapest by themselves. A unit whose removal alone loses more than that whole
    mask is fatal and protected from then on. Then come random masks at the budget, most of them
    around the mask of cheapest units (all of them where there are widths), then rounds of
    proposals, see `propose`.

    Where single removals are known and all masks see all examples, only a quarter of the random
    ones come first, and some of the others after each round.

    Where losses of single examples are known, a mask costs what share of the examples it sees:
    single removals (of many units) and random masks see a quarter, by turns another one. So do
    proposals as long as that tells more than fewer masks on everything, see `parts_pay`; after each
    round the most hopeful of these sees a further quarter, see `hopeful`.

    Args:
        space: graph and budget.
        fit: makes a surrogate of evaluations.
        seed: of everything random.
        limit: evaluations in all; those of a share of the examples count for that share.
        before: evaluations of earlier runs, to start from.
        settings: see `Settings`.
        patience: ends the search early; None asks for all evaluations.
        lots: examples in each lot, if evaluations may see some lots only.
        alike: relative difference of losses that rounding in batches of other sizes explains.
        picks: gives the masks of scores, of which the first take `Settings.scored` of the limit.

    Yields:
        Asks; send back the evaluations of each.

    Raises:
        ObjectiveError: the unpruned network itself cannot be measured.
    """
    settings = settings or Settings()
    rng = np.random.default_rng(seed)
    known, graph = Known(space, before), space.graph
    purse = _Purse(known, limit, lots)
    yield from purse.ask("leave-one-out", "unpruned", [graph.empty])
    _check_unpruned(known.records[graph.empty], graph)
    sizes = yield from _sizes(purse, settings, alike, rng)
    alone = [mask for u in probes(space) if space.connected(mask := graph.mask([u]))]
    many = len(alone) > settings.few * limit
    if len(alone) * purse.share(sizes[0] if many else ()) + purse.spent <= 0.75 * limit:
        yield from purse.ask("leave-one-out", "leave-one-out", alone, sizes[0] if many else ())
    if (ranking := ranked_pick(space)) is not None:
        yield from purse.ask("sampling", "ranking", [ranking])
    yield from purse.ask("sampling", "scored", picks()[: max(round(settings.scored * limit), 1)])
    if (pick := single_pick(space, known.estimates)) is not None:
        yield from purse.ask("leave-one-out", "single pick", [pick])
        known.space = space = space.protecting(fatal_units(space, known.estimates))
    samples = settings.samples // (4 if before else 1)
    share = 1.0 if graph.nested else settings.guided
    guided = _guided(space, known.estimates, round(samples * share), rng)
    sampled = guided + sample_at_budget(space, samples - len(guided), rng)
    first = len(sampled)
    if not sizes[-1] and not known.records.keys().isdisjoint(alone):
        sampled = [sampled[i] for i in rng.permutation(first)]
        first = settings.samples // 4
    yield from purse.ask("sampling", "sampled", sampled[:first], sizes[-1])
    yield from _rounds(purse, fit, settings, sizes, seed, patience, sampled[first:])


def _rounds(
    purse: _Purse, fit: FitFunction, settings: Settings, sizes: Sequence[Lots], seed: int,
    patience: Patience | None, sampled: Sequence[Mask],
) -> Questions:  # fmt: skip
    """Proposals, each after a second look at the most hopeful mask that saw some examples only.

    As long as some are left, random masks follow.
    """
    known, space = purse.known, purse.known.space
    dry, calm, region, turns, others = 0, 0, Region(), cycle(sizes), iter(sampled)
    while purse.left >= purse.share(sizes[0]) - 1e-9 and dry < 3:
        model = fit(list(known.estimates.values()), space)
        hopes = hopeful(space, model, known)[:1]
        lacks = max(map(known.lacks, hopes), default=0.0)
        ends = purse.left - lacks <= settings.last * purse.limit or dry
        rest = () if ends or not hopes else known.rest(hopes[0], sizes)
        if (yield from purse.ask("proposals", "proposed", hopes, rest, model)):
            if ends:
                continue
            model = fit(list(known.estimates.values()), space)
        rng = np.random.default_rng([seed, len(known.records)])
        masks = propose(space, model, known.estimates, settings, rng, region)
        if patience is not None:
            calm = calm + 1 if hopeless(space, model, known.whole, masks, patience.noise) else 0
            if calm >= patience.rounds:
                return
        least = _least(space, known.estimates)
        share = purse.share(sizes[0])
        lots = next(turns) if parts_pay(space, model, known, masks, share) else ()
        asked = yield from purse.ask("proposals", "proposed", masks, lots, model)
        dry = 0 if asked else dry + 1
        if asked:
            region.learn(_least(space, known.estimates) < least)
        yield from purse.ask("sampling", "sampled", islice(others, settings.beside), lots)


@dataclass
class _Purse:
    """What may still be spent, and what is learnt for it.

    Args:
        known: evaluations so far.
        limit: evaluations of all examples that may be spent.
        lots: examples in each lot.
    """

    known: Known
    limit: float
    lots: Sequence[int]
    spent: float = 0.0

    @property
    def left(self) -> float:
        return self.limit - self.spent

    def share(self, lots: Lots) -> float:
        """Of all examples."""
        return sum(self.lots[i] for i in lots) / sum(self.lots) if lots else 1.0

    def ask(
        self, phase: str, origin: str, masks: Iterable[Mask], lots: Lots = (), model: Any = None
    ) -> Steps:
        """Ask for masks as far as they are new and can be paid for; whether there was any."""
        fresh = dict[Mask, None]()
        for mask in map(self.known.space.minimal, masks):
            lacks = self.known.lacks(mask)
            price = self.share(lots) if lots else lacks
            wanted = lacks > 0.0 and self.known.seen.get(mask, set()).isdisjoint(lots)
            if mask not in fresh and wanted and price <= self.left + 1e-9:
                fresh[mask] = None
                self.spent += price
        if not fresh:
            return False
        expected = _expected(self.known.space, model, list(fresh))
        self.known.add((yield Ask(phase, origin, tuple(fresh), expected, lots)))
        return True


def _sizes(
    purse: _Purse, settings: Settings, alike: float, rng: np.random.Generator
) -> Generator[Ask, Sequence[Evaluation], list[Lots]]:
    """The sizes that take turns; that of all examples, (), where smaller ones are of no use."""
    empty, count = purse.known.space.graph.empty, len(purse.lots)
    if purse.known.records[empty].each is None or count < 4 or not settings.sizes:
        return [()]
    quarter = count // 4
    found = [tuple(range(i, i + quarter)) for i in range(0, quarter * 4, quarter)]
    purse.spent += purse.share(found[0])
    [record] = yield Ask("leave-one-out", "unpruned", (empty,), {}, found[0])
    if not purse.known.sizes_hold(record, alike):
        return [()]
    return [found[i] for i in rng.permutation(len(found))]


def _least(space: Space, known: Mapping[Mask, Evaluation]) -> float:
    return min(feasible(space, known).values(), default=np.inf)


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
    if model is None:
        return {}
    mean, std = model.predict(space.graph.matrix(masks), return_std=True)
    return {m: (float(a), float(b)) for m, a, b in zip(masks, mean, std, strict=True)}
