"""From evaluations to a plan: finalists are verified, the winner is reported and certified."""

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import PlanError
from ..evaluation.objective import Objective, Recovery
from ..evaluation.records import whole_of
from ..graph.graph import Graph, Mask
from ..graph.outputs import severed
from ..graph.rules import words
from ..graph.times import OperatorTimes
from ..latency import LatencyTable, settle
from ..pruning.module_form import edits_of
from ..pruning.plan import Clocked, Plan
from ..search import Space, fatal_units
from ..surrogates.searcher import Searcher
from ..values.identity import Identity
from ..values.version import __version__
from .certify import certify as promised
from .finalists import verified
from .fitting import Finalists, shortlist
from .measuring import Measuring
from .picks import picks
from .progress import Callback, Teller
from .provenance import trace_record
from .put_backs import with_put_backs
from .recovering import best_recovered, recovered_once
from .statistics import examples_seen, measured

log = logging.getLogger("edgewise")
Spaces = Callable[[OperatorTimes | None], Space]


@dataclass(frozen=True)
class Planner:
    """What a plan is made of.

    Args:
        study: its name.
        identity: what its evaluations belong to.
        graph: of the network.
        objective: what was measured.
        measuring: answers what is asked.
        table: of operator times, if there is one.
        run: settings of the run that searched.
        searcher: the surrogate that orders the finalists.
    """

    study: str
    identity: Identity
    graph: Graph
    objective: Objective
    measuring: Measuring
    table: LatencyTable | None
    run: Mapping[str, Any]
    searcher: Searcher

    def plan(
        self, spaces: Spaces, limit: float | str | None, *, finalists: int, certify: int,
        recovery: Recovery | None, progress: Callback | None,
    ) -> Plan:  # fmt: skip
        """See `Study.plan`.

        Args:
            spaces: makes the masks within the budget, of operator times or those of the table.
            limit: of latency, if there is one.
        """
        if certify and "verify" not in self.objective.splits:
            raise PlanError(
                "certify= needs a verify split: masks measured on the search split would guide "
                "later searches. Give the objective verify=, or certify=0."
            )
        if recovery is not None and self.objective.recovery.kind != "none":
            raise PlanError(
                "The search measured masks with recovery, and the plan has it: leave out recovery=."
            )
        last, whole = len(self.objective.splits.keys() - {"trial"}), spaces(None)
        told = Teller(progress, whole, last)

        def choose(space: Space) -> tuple[Mask, tuple[Space, Finalists, Mask]]:
            evaluations, every = self.measuring.learnt(space), space
            space = space.protecting(fatal_units(space, space.by_mask(evaluations)))
            seed = self.run["seed"]
            chosen = shortlist(space, self.searcher, evaluations, finalists, seed)
            told.total += chosen.count
            best = verified(self.measuring, chosen.masks, chosen.losses, chosen.count, told)
            winner = with_put_backs(space, self.measuring, best[0], told)
            if recovery is not None:
                few = dict.fromkeys([winner, *best[1:], *picks(every, self.objective)])
                winner = best_recovered([*few], self.graph, self.objective, recovery, told)
            return winner, (space, chosen, winner)

        if self.table is None or limit is None:
            found, clocked = choose(whole)[1], None
        else:
            found, clocked = settle(
                self.table, self.graph, limit, lambda times: choose(spaces(times))
            )
        plan = self._written(*found, told, clocked)
        seed = self.run["seed"]
        certificate = promised(*found, self.measuring, count=certify, seed=seed, told=told)
        plan = replace(plan, certificate=certificate)
        if recovery is None:
            return plan
        return recovered_once(plan, self.graph, self.objective, recovery)

    def _written(
        self, space: Space, chosen: Finalists, winner: Mask, told: Teller, clocked: Clocked | None
    ) -> Plan:
        told.phase = "reporting"
        for output, inputs in severed(self.graph, winner).items():
            log.warning(
                "In this plan the output %s no longer depends on %s: keep one of the removed units "
                "that lead to it, or measure what it gives.", output, ", ".join(inputs),
            )  # fmt: skip
        splits = [split for split in self.objective.splits if split != "trial"]
        results = {s: self.measuring.final(winner, self.graph.empty, s, told) for s in splits}
        last = results[splits[-1]][0]
        after = space.cost(winner)
        assert after is not None
        if clocked is not None:
            after = replace(after, seconds=clocked.seconds)
        mean, std = chosen.expects(winner)
        units = self.graph.units
        return Plan(
            bits=str(winner),
            fingerprint=self.graph.fingerprint,
            removed=tuple(units[u].name for u in winner.removed),
            protected=tuple(units[u].name for u in sorted(space.protected)),
            budget=space.budget.limits,
            before=space.unpruned,
            after=after,
            predicted={"loss": mean, "deviation": std},
            measured={s: measured(o, e) for s, (o, e) in results.items()},
            surrogate=chosen.choice.name,
            recovery=self.objective.recovery.kind,
            trace=trace_record(self.graph),
            provenance=self._provenance(chosen),
            latency=clocked,
            edits=edits_of(self.graph, winner, last.tensors),
            tensors=last.tensors,
            labels=said(self.graph, winner),
        )

    def _spent(self) -> dict[str, int]:
        """Masks measured on the search split, and the examples that all of them saw."""
        search = [e for e in self.measuring.storage.evaluations() if whole_of(e.split) == "search"]
        return {"evaluations": len({e.mask for e in search}), "examples": examples_seen(search)}

    def _provenance(self, chosen: Finalists) -> dict[str, Any]:
        return {
            "study": self.study,
            "seed": self.run["seed"],
            **self._spent(),
            "finalists": chosen.count,
            **chosen.choice.record,
            **({"rules": words(self.graph)} if self.graph.ruled else {}),
            "model": (self.graph.program.whole or self.graph.program).name,
            "weights": self.identity.digests["weights"],
            "edgewise": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }


def said(graph: Graph, mask: Mask) -> tuple[str, ...]:
    """What a person calls that which a mask removes: of nested slices, what the last one leaves."""
    last = {graph.group_of.get(unit, (unit,)): unit for unit in mask.removed}
    return tuple(graph.units[unit].label for unit in last.values())
