"""Recovery of masks that were searched without."""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import ObjectiveError
from ..evaluation.evaluator import Engine
from ..evaluation.objective import Objective, Recovery
from ..evaluation.records import Evaluation, Split
from ..graph.graph import Graph, Mask
from ..pruning.plan import Plan
from ..pruning.prune import resolve
from .progress import Teller
from .statistics import measured


def best_recovered(
    masks: Sequence[Mask], graph: Graph, objective: Objective, recovery: Recovery, told: Teller
) -> Mask:
    """The mask that loses least once it is recovered, on data that the search has not seen.

    Raises:
        ObjectiveError: the calibration data do not fit, or every recovered network fails.
    """
    split: Split = "verify" if "verify" in objective.splits else "search"
    told.phase, told.total = "recovering", told.total + len(masks)
    engine, losses, found = _engine(graph, objective, recovery), dict[Mask, float](), None
    for mask in masks:
        (outcome,) = engine.evaluate([mask], split)
        found = outcome.evaluation
        told(found)
        if found.loss is not None:
            losses[mask] = found.loss
    if not losses:
        raise ObjectiveError(f"No finalist can be recovered: {found and found.error}")
    return min(losses, key=losses.__getitem__)


def recovered_once(plan: Plan, graph: Graph, objective: Objective, recovery: Recovery) -> Plan:
    """The plan with its mask recovered, and measured again on the split that no choice has seen.

    Raises:
        ObjectiveError: the calibration data do not fit, or the recovered network fails.
    """
    split = objective.last
    (mask, _), before = resolve(graph, plan), plan.measured[split]
    (outcome,) = _engine(graph, objective, recovery).evaluate([mask], split, tensors=True)
    if outcome.evaluation.status != "ok":
        raise ObjectiveError(f"The plan cannot be recovered: {outcome.evaluation.error}")
    unpruned = Evaluation(str(graph.empty), split, before.unpruned_loss, before.unpruned_metrics)
    return replace(
        plan, recovery=recovery.kind, tensors=dict(outcome.tensors), certificate=None,
        measured={split: measured(outcome, unpruned)},
    )  # fmt: skip


def _engine(graph: Graph, objective: Objective, recovery: Recovery) -> Engine:
    """One that recovers each mask as well as it can."""
    if graph.program.whole is None:
        recovery = recovery.placed(graph.program.names)
    again = replace(objective.over(lambda inputs: inputs), recovery=recovery)
    return Engine(graph, again, once=True)
