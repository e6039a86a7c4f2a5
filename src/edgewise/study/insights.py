"""What all evaluations of a study say together: fronts, interactions, flows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from ..errors import BudgetError, PlanError
from ..evaluation.records import Evaluation
from ..graph.budget import Budget
from ..graph.graph import Graph, Mask
from ..graph.times import OperatorTimes
from ..latency import LatencyTable
from ..report import Insight
from ..search import Point, Space, fatal_units, front, levels, trade_offs
from ..surrogates import GraphGP
from ..surrogates.interactions import Interactions, interactions
from ..surrogates.searcher import Searcher
from .fitting import Observations, chosen
from .measuring import Measuring

SECONDS = 1.0  # of the solver for each budget of a report's front: people wait for the page

log = logging.getLogger("edgewise")


@dataclass(frozen=True)
class Knowledge:
    """What the evaluations of a study on its search split say of masks.

    Args:
        graph: of the network.
        known: what each mask loses on the search split, with the noise of those that saw a part.
        run: settings of the last run.
        times: of operators, if they are known.
    """

    graph: Graph
    known: Sequence[Evaluation]
    run: Mapping[str, Any]
    times: OperatorTimes | None

    @classmethod
    def of(cls, graph: Graph, measuring: Measuring, table: LatencyTable | None) -> Knowledge:
        """What a study knows now.

        Raises:
            PlanError: nothing has been evaluated yet.
        """
        times = None if table is None else table.times(graph)
        empty = cls(graph, [], measuring.last_run(), times)
        return replace(empty, known=measuring.learnt(empty.space))

    @property
    def budget(self) -> Budget:
        """Of the last run."""
        return Budget(**self.run["budget"])

    @cached_property
    def space(self) -> Space:
        """At that budget, or at another where its latency cannot be told."""
        budget = Budget(macs=0.7) if self.timeless else self.budget
        return Space(self.graph, budget, times=self.times)

    @property
    def timeless(self) -> bool:
        """Whether the budget limits latency and no table says what is within it."""
        return self.times is None and self.budget.latency is not None

    def pareto(
        self, searcher: Searcher, budgets: Sequence[Budget] | None = None,
        objectives: Sequence[str] | None = None, time_limit: float | None = 10.0, seed: int = 0,
    ) -> list[Point]:  # fmt: skip
        """See `Study.pareto`."""
        if budgets is not None and objectives is not None:
            raise BudgetError("A front takes either budgets= or objectives=, not both.")
        budgets = levels(self.budget) if budgets is None else budgets
        base = budgets[0] if self.timeless and budgets else self.budget
        space = self.space.at(base)
        space = space.protecting(self._fatal(space))
        find = partial(front, budgets=budgets, time_limit=time_limit)
        if objectives is not None:
            find = partial(trade_offs, objectives=objectives, seed=seed)
        good = space.by_mask(e for e in self.known if e.ok and e.split == "search")
        data = Observations.of(self.known, space).required
        model = data.fitted(searcher, chosen(searcher, data))
        points = find(space, model, known=list(good))
        losses = {mask: e.loss for mask, e in good.items() if not e.noise}  # of all examples
        return [replace(point, measured=losses.get(point.mask)) for point in points]

    def process(self) -> GraphGP:
        """A Gaussian process on the graph, whatever surrogate searched."""
        data = Observations.of(self.known, self.space).required
        return GraphGP(self.graph, link=data.link).fit(data.X, data.y, data.noise)

    def interactions(self, base: Mask, model: GraphGP) -> Interactions:
        """Of the units whose single removal is not fatal, around a mask."""
        fatal = frozenset[int]() if self.timeless else self._fatal(self.space)
        units = [unit for unit in range(len(self.graph.units)) if unit not in fatal]
        return interactions(model, self.graph, base, units=units)

    def _fatal(self, space: Space) -> frozenset[int]:
        return fatal_units(space, space.by_mask(self.known))

    def insight(self, base: Mask, searcher: Callable[[], Searcher]) -> Insight:
        """All of it, with the interactions around a mask; no front if there is no `searcher`."""
        model = self.process()
        flows = None if model.gamma_ is None else model.gamma_.tolist()
        try:
            points = self.pareto(searcher(), time_limit=SECONDS)
        except (BudgetError, PlanError) as error:
            log.warning("There is no front: %s", error)
            points = []
        return Insight(self.budget, points, self.interactions(base, model), flows)
