"""Recovery of a plan that was chosen without."""

from dataclasses import replace

from ..errors import ObjectiveError
from ..evaluation.evaluator import Engine
from ..evaluation.objective import Objective, Recovery
from ..evaluation.records import Evaluation
from ..graph.graph import Graph
from ..pruning.plan import Plan
from ..pruning.prune import resolve
from .statistics import measured


def recovered_once(plan: Plan, graph: Graph, objective: Objective, recovery: Recovery) -> Plan:
    """The plan with its mask recovered, and measured again on the split that no choice has seen.

    Raises:
        ObjectiveError: the calibration data do not fit, or the recovered network fails.
    """
    split = objective.last
    if graph.program.whole is None:
        recovery = recovery.placed(graph.program.names)
    again = replace(objective.over(lambda inputs: inputs), recovery=recovery)
    (mask, _), before = resolve(graph, plan), plan.measured[split]
    (outcome,) = Engine(graph, again, once=True).evaluate([mask], split, tensors=True)
    if outcome.evaluation.status != "ok":
        raise ObjectiveError(f"The plan cannot be recovered: {outcome.evaluation.error}")
    unpruned = Evaluation(str(graph.empty), split, before.unpruned_loss, before.unpruned_metrics)
    return replace(
        plan, recovery=recovery.kind, tensors=dict(outcome.tensors), certificate=None,
        measured={split: measured(outcome, unpruned)},
    )  # fmt: skip
