"""What the records say, in the form that the page's sections need."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import MaskError, PlanError
from ..evaluation.records import Evaluation, whole_of
from ..graph.budget import Budget
from ..graph.cost import cost
from ..graph.graph import Cost, Graph, Mask
from ..graph.times import OperatorTimes
from ..pruning.plan import Measured, Plan
from ..search import Point, Space
from ..surrogates.interactions import Interactions
from ..values.markup import Markup, card
from . import numbers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the plan afterwards.

    Args:
        healed: loss and metrics after fine-tuning, beside those of the unpruned network.
        files: what lies beside the page: the name of each file → what it holds.
        load: Python that loads the pruned network from them.
        next: what can be done next → the command that does it.
    """

    healed: Measured | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    load: str = ""
    next: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Insight:
    """What a study knows beyond its evaluations.

    Args:
        budget: of its last run, while there is no plan.
        front: what a surrogate thinks is reachable at several budgets.
        interactions: which units hurt or help each other.
        flows: [n_edges] γ, the share of what leaves an edge's source that flows through it.
        histories: method → for each seed the lowest loss within the budget after each evaluation,
            of a comparison of methods.
        again: how a plan is made at other limits, "{limits}" standing for them: {"macs": "60%"}
            gives `macs=60%`.
    """

    budget: Budget | None = None
    front: Sequence[Point] = ()
    interactions: Interactions | None = None
    flows: Sequence[float] | None = None
    histories: Mapping[str, Sequence[Sequence[float | None]]] = field(default_factory=dict)
    again: str = ""


@dataclass(frozen=True)
class Facts:
    """The records of one report and what follows from them.

    Args:
        graph: the traced network.
        evaluations: what was measured, in order.
        plan: what was chosen, None if nothing is yet.
        outcome: healing and latency.
        times: of the operators, where the plan's budget limits latency; without them the limit is
            left out where masks are judged.
        insight: what surrogates and comparisons say.
    """

    graph: Graph
    evaluations: Sequence[Evaluation]
    plan: Plan | None
    outcome: Outcome
    times: OperatorTimes | None = None
    insight: Insight = Insight()

    def check(self) -> Facts:
        """These facts, if the records belong together.

        Raises:
            PlanError: the plan was made for another graph.
            MaskError: an evaluation's mask was.
        """
        if self.plan is not None and self.graph.fingerprint != self.plan.fingerprint:
            raise PlanError(
                f"The plan was made for graph {self.plan.fingerprint[:12]}, the report is asked "
                f"for {self.graph.fingerprint[:12]}. Pass the graph that the plan was made for."
            )
        for evaluation in self.evaluations:
            if len(evaluation.mask) != len(self.graph.units):
                raise MaskError(
                    f"Evaluation {evaluation.number} has a mask of {len(evaluation.mask)} bits, "
                    f"the graph {len(self.graph.units)} units. Pass the graph of that study."
                )
        return self

    def card(self, title: str) -> Markup:
        """What a notebook shows of a study."""
        splits = Counter(whole_of(e.split) for e in self.evaluations)
        counts = ", ".join(f"{count} on the {split} split" for split, count in splits.items())
        return card(
            title,
            {
                "Network": self.graph,
                "Evaluations": counts or "none yet",
                "Failed": len(self.failures) or None,
                "Unpruned loss": None if self.unpruned is None else numbers.plain(self.unpruned),
                f"Best loss within {self.budget}": numbers.plain(self.best[-1][1])
                if self.best
                else None,
            },
        )

    @cached_property
    def mask(self) -> Mask:
        """The chosen mask; the empty one where there is no plan."""
        return self.graph.empty if self.plan is None else self.graph.mask(bits=self.plan.bits)

    @cached_property
    def before(self) -> Cost:
        return self.plan.before if self.plan else cost(self.graph)

    @cached_property
    def search(self) -> list[Evaluation]:
        """Evaluations on the search split, in order."""
        found = [e for e in self.evaluations if e.split == "search"]
        return sorted(found, key=lambda e: e.number)

    @cached_property
    def drawn(self) -> list[tuple[int, Evaluation, float]]:
        """Position among the search evaluations, evaluation and loss, where the loss is finite."""
        pairs = [(i, e, e.loss) for i, e in enumerate(self.search) if e.ok]
        return [(i, e, v) for i, e, v in pairs if v is not None and math.isfinite(v)]

    @cached_property
    def foreseen(self) -> list[tuple[Evaluation, float, float]]:
        """Evaluation, predicted and measured loss, where both are finite."""
        pairs = [(e, e.predicted, v) for _, e, v in self.drawn]
        return [(e, p, v) for e, p, v in pairs if p is not None and math.isfinite(p)]

    @cached_property
    def failures(self) -> list[Evaluation]:
        return [e for e in self.evaluations if not e.ok]

    @cached_property
    def unpruned(self) -> float | None:
        """The unpruned network's loss on the search split."""
        if self.plan and "search" in self.plan.measured:
            return self.plan.measured["search"].unpruned_loss
        losses = [loss for _, e, loss in self.drawn if "1" not in e.mask]
        return losses[0] if losses else None

    @cached_property
    def alone(self) -> dict[int, float]:
        """Unit → the search loss with only that unit removed."""
        found: dict[int, float] = {}
        for _, e, loss in self.drawn:
            if e.mask.count("1") == 1:
                found.setdefault(e.mask.index("1"), loss)
        return found

    @cached_property
    def budget(self) -> Budget | None:
        """What was asked for: the plan's limits, or those of the run that goes on."""
        if self.plan is None:
            return self.insight.budget
        return Budget(**self.plan.budget) if self.plan.budget else None

    @cached_property
    def best(self) -> list[tuple[int, float]]:
        """(Position among the search evaluations, loss) wherever a mask within the budget is the
        best so far; without a budget, any mask that removes something."""
        steps: list[tuple[int, float]] = []
        lowest = float("inf")
        for position, e, loss in self.drawn:
            if loss < lowest and self._allowed(e.mask):
                lowest = loss
                steps.append((position, lowest))
        return steps

    def _allowed(self, bits: str) -> bool:
        space = self._within
        return "1" in bits if space is None else space.allows(self.graph.mask(bits=bits))

    @cached_property
    def _within(self) -> Space | None:
        """The masks within the budget, without a latency that cannot be predicted here."""
        limits = self.budget.limits if self.budget else {}
        if self.times is None:
            limits.pop("latency", None)
        return Space(self.graph, Budget(**limits), times=self.times) if limits else None

    @property
    def latency_ms(self) -> tuple[float, float] | None:
        """Milliseconds for a batch before and after pruning, as far as they were measured."""
        found = self.plan.latency if self.plan else None
        return None if found is None else (1000 * found.unpruned, 1000 * found.seconds)

    @property
    def protected(self) -> frozenset[str]:
        return frozenset(self.plan.protected) if self.plan else frozenset()
