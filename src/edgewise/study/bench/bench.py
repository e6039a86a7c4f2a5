"""Is a joint search worth it on your model? It and the usual methods, with equal means."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import EdgewiseError
from ...evaluation.records import Evaluation
from ...graph.budget import Budget
from ...graph.graph import Cost, Mask
from ...search import Questions, Space, fatal_units, search
from ...search.known import Known
from ...search.proposals import feasible
from ...surrogates.searcher import Searcher, searcher
from .. import scores
from ..fitting import searching, shortlist
from ..measuring import offered
from ..progress import Callback, Teller
from ..statistics import bootstrap, examples_seen
from ..study import Study
from . import baselines

log = logging.getLogger("edgewise")


_MEANS = ("evaluations", "seconds", "search_loss")


@dataclass(frozen=True)
class Row:
    """What one method found with one seed.

    Args:
        method: its name in `METHODS`.
        seed: of everything random.
        evaluations: masks it asked to measure on the search split.
        examples: how many these saw in all, which is what methods are given equally.
        seconds: what measuring them took, also where another method had asked before.
        search_loss: of the chosen mask on the search split.
        loss: of the chosen mask on the last split there is, which no method has seen.
        interval: 95 % bootstrap interval of that loss, where losses of single examples are known.
        metrics: on the same split.
        cost: of what the mask leaves.
        removed: names of the removed units.
        history: lowest search loss within the budget after the examples of each evaluation of all
            of them, None before the first.
    """

    method: str
    seed: int
    evaluations: int
    examples: int
    seconds: float
    search_loss: float
    loss: float
    interval: tuple[float, float] | None
    metrics: dict[str, float]
    cost: Cost
    removed: tuple[str, ...]
    history: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True)
class _Contest:
    """What all methods are given alike."""

    study: Study
    space: Space
    limit: int
    seed: int
    searcher: Searcher

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def taylor(self) -> Questions:
        objective = self.study.objective
        found = scores.taylor(self.study.graph, objective.splits["search"], objective.loss)
        return baselines.scored(self.space, found)

    def influence(self) -> Questions:
        found = scores.influence(self.study.graph, self.study.objective.splits["search"])
        return baselines.scored(self.space, found)


METHODS: dict[str, Callable[[_Contest], Questions]] = {
    "edgewise": lambda c: search(
        c.space,
        searching(c.searcher),
        seed=c.seed,
        limit=c.limit,
        **offered(c.space, c.study.objective),
    ),
    "random": lambda c: baselines.at_random(c.space, c.limit, c.rng),
    "magnitude": lambda c: baselines.scored(c.space, scores.magnitude(c.study.graph)),
    "taylor": _Contest.taylor,
    "influence": _Contest.influence,
    "ranking": lambda c: baselines.ranking(c.space),
    "leave-one-out": lambda c: baselines.leave_one_out(c.space),
    "greedy": lambda c: baselines.greedy(c.space, c.limit),
    "evolution": lambda c: baselines.evolution(c.space, c.limit, c.rng),
    "exhaustive": lambda c: baselines.exhaustive(c.space, c.limit),
}
RANDOM = ("edgewise", "random", "evolution")  # methods whose result depends on the seed
USUAL = tuple(name for name in METHODS if name not in ("exhaustive", "ranking"))


def bench(
    study: Study,
    budget: Budget,
    methods: Sequence[str] | None = None,
    *,
    evaluations: int = 120,
    seeds: Sequence[int] = (0,),
    finalists: int = 16,
    surrogate: Any = "auto",
    progress: Callback | None = None,
) -> Iterator[Row]:
    """Let methods choose a mask for the same budget, data and number of evaluations.

    A mask that several methods ask for is measured once and counted for each. Methods with
    several masks within the budget choose among the best on the verify split, as `Study.plan` does.

    Args:
        study: graph and objective; evaluations are kept in it, so that an interrupted comparison
            continues.
        budget: limits on what remains.
        methods: some of `METHODS`; by default all but "exhaustive", and "ranking" where there are
            widths.
        evaluations: for each method, at most.
        seeds: each gives a row; methods without randomness have one row for all.
        finalists: masks that meet on the verify split, of each method.
        surrogate: with which "edgewise" searches, as for `Study.run`.
        progress: called after every evaluation.

    Yields:
        A row a method and seed, as they are finished.

    Raises:
        BudgetError: the budget cannot be met.
        EdgewiseError: an unknown method; one that needs more evaluations than allowed; a
            surrogate that cannot search.

    Examples:
        >>> from edgewise.study.bench import bench
        >>> rows = list(bench(study, ew.Budget(macs=0.7), ["magnitude", "random"], evaluations=10))
        >>> [(row.method, row.evaluations) for row in rows]
        [('magnitude', 1), ('random', 10)]
    """
    names = tuple(methods) if methods is not None else _usual(study)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise EdgewiseError(f"No method is called {unknown[0]!r}. There are {', '.join(METHODS)}.")
    space, found = study.space(budget), searcher(surrogate)
    for seed in seeds:
        for name in names:
            if name in RANDOM or seed == seeds[0]:
                contest = _Contest(study, space, evaluations, seed, found)
                row = _row(contest, name, finalists, progress)
                if row is not None:
                    yield row


def _usual(study: Study) -> tuple[str, ...]:
    return (*USUAL, "ranking") if study.graph.nested else USUAL


def _row(c: _Contest, name: str, finalists: int, progress: Callback | None) -> Row | None:
    told = Teller(progress, c.space, c.limit, name)
    asked = c.study.follow(METHODS[name](c), told)
    within = feasible(c.space, Known(c.space, asked).whole)
    if not within:
        log.warning("%s found no mask within the budget that can be measured.", name)
        return None
    masks, expected = _candidates(c, name, asked, within, finalists)
    winner = masks[0]
    if len(masks) > 1:
        winner = c.study.verified(masks, expected, min(finalists, len(masks)), told)
    last = c.study.objective.last
    found, again = c.study.evaluate([winner], last)[0], c.study.evaluate([winner])[0]
    for record in (found, again):
        if record.loss is None:
            log.warning("%s: the chosen mask failed (%s): %s", name, record.status, record.error)
            return None
    losses, cost = c.study.losses(winner, last), c.space.cost(winner)
    assert found.loss is not None
    assert again.loss is not None
    assert cost is not None
    return Row(
        method=name,
        seed=c.seed,
        evaluations=len({e.mask for e in asked}),
        examples=examples_seen(asked),
        seconds=round(sum(e.seconds for e in asked), 2),
        search_loss=again.loss,
        loss=found.loss,
        interval=None if losses is None else bootstrap(losses),
        metrics=dict(found.metrics),
        cost=cost,
        removed=tuple(c.study.graph.units[u].name for u in winner.removed),
        history=_history(c.space, asked, c.study.objective.samples("search")),
    )


def _candidates(
    c: _Contest, name: str, asked: Sequence[Evaluation], losses: Mapping[Mask, float], count: int
) -> tuple[Sequence[Mask], Sequence[float]]:
    """The masks that may meet on the verify split, the most promising first, and their losses."""
    if name == "edgewise":
        known = Known(c.space, asked).estimates
        space = c.space.protecting(fatal_units(c.space, known))
        chosen = shortlist(space, c.searcher, list(known.values()), count, c.seed)
        return chosen.masks, chosen.losses
    best = sorted(losses, key=lambda mask: (losses[mask], mask.bits))
    return best, [losses[mask] for mask in best]


def _history(space: Space, asked: Sequence[Evaluation], whole: int) -> tuple[float | None, ...]:
    best: float | None = None
    found = list[float | None]()
    spent, parts = 0.0, Counter[str]()
    for e in asked:
        size = e.samples or whole  # a failure cost as much
        if e.split == "search":
            size -= parts[e.mask]
            if e.loss is not None and space.allows(space.graph.mask(bits=e.mask)):
                best = e.loss if best is None else min(best, e.loss)
        parts[e.mask] += size
        spent += size / whole
        found += [best] * (round(spent) - len(found))
    return tuple(found)


def histories(rows: Sequence[Row]) -> dict[str, list[tuple[float | None, ...]]]:
    """Method → for each seed its history, as `study.plot.methods` draws them."""
    found: dict[str, list[tuple[float | None, ...]]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row.history)
    return found


def summary(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells of a table, a line a method: means over its seeds, best first.

    The loss on fresh data is given with its standard deviation over seeds.
    """
    measures = sorted({name for row in rows for name in row.metrics})
    lines = []
    for name in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == name]
        losses = np.array([row.loss for row in mine])
        spread = f" ± {losses.std(ddof=1):.4f}" if len(mine) > 1 else ""
        count, seconds, found = (np.mean([getattr(row, key) for row in mine]) for key in _MEANS)
        cells = [f"{count:.0f}", f"{seconds:.1f}", f"{found:.4f}", f"{losses.mean():.4f}{spread}"]
        cells += [f"{np.mean([row.metrics[m] for row in mine]):.4f}" for m in measures]
        lines.append((float(losses.mean()), [name, *cells]))
    columns = ["method", "masks", "seconds", "search loss", "fresh loss"]
    return [*columns, *measures], [cells for _, cells in sorted(lines)]
