"""Whether a stored study is of this network and objective: what it holds is measured again.

Identities tell networks and losses apart by what they consist of, but code of installed packages by
its name alone. A measurement needs no such knowledge.
"""

import logging
from collections.abc import Iterable
from math import isfinite
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from ..errors import ObjectiveError, OtherStudyError, PlanError, StorageError
from ..evaluation.calibration import batch_norms, recalibrated
from ..evaluation.evaluator import Executor, Outcome
from ..evaluation.objective import Objective
from ..evaluation.records import Evaluation, Split
from ..evaluation.recover import estimate
from ..evaluation.sense import Sense, sense
from ..graph.graph import Graph
from ..pruning.weights import require_savable
from ..values.identity import Identity
from .statistics import compare
from .storage.storage import Storage

log = logging.getLogger("edgewise")
ALIKE = 1e-3  # relative difference of losses that other processors and versions of torch explain
HALF = 5e-2  # the same for weights in half precision
HARM = 0.02  # of the unpruned loss, worth a warning
FLIPS = 2  # hits and misses of an accuracy that such a difference may turn


def confirm(
    graph: Graph, objective: Objective, storage: Storage, executor: Executor, own: Identity
) -> None:
    """Measure one stored mask again, the unpruned network if it is there, and compare.

    On the search split where the study's identity is known to be this one's; on every split of
    which there are evaluations where it is from another version, and cannot be compared; the
    study then belongs to its `own` identity from now on.

    Raises:
        StorageError: what is measured differs from what is stored.
    """
    splits: list[Split] = list(objective.splits) if storage.unproven else ["search"]
    evaluations = storage.evaluations()
    if evaluations and len(evaluations[0].mask) != len(graph.units):  # all have one length
        raise StorageError(
            f"Study {storage.name!r} in {storage.url} is damaged: its masks have "
            f"{len(evaluations[0].mask)} bits, and the graph {len(graph.units)} units."
        )
    for split in splits:
        stored = _example(evaluations, graph, objective, split)
        if stored is None:
            continue
        log.debug("Measuring again what the study holds of the %s split.", split)
        mask = graph.mask(bits=stored.mask)
        outcome = next(iter(executor.evaluate([mask], split)))
        half = any(p.dtype.itemsize == 2 for p in graph.program.module.parameters())
        if other := _difference(storage, stored, outcome, HALF if half else ALIKE):
            what = "the unpruned network" if mask == graph.empty else f"mask {mask}"
            raise OtherStudyError(
                f"Study {storage.name!r} in {storage.url} answers for another network or another "
                f"objective: for {what} on the {split} split {other}. Its evaluations do not apply "
                "here. Name this study otherwise, or use another storage. (A loss or a metric that "
                "draws random numbers differs every time: give it a generator with a fixed seed.)"
            )
    if storage.unproven:
        storage.adopt(own)


def tell_cost(graph: Graph, objective: Objective) -> None:
    """Say what recovery will take, where that may be much, before the first mask takes it."""
    if objective.recovery.kind == "linear":
        found = estimate(graph, objective.recovery)
        log.log(logging.WARNING if found.cheaper else logging.INFO, "%s", found)


def check_savable(graph: Graph) -> None:
    """Warn if the weights that a plan leads to cannot be saved."""
    try:
        require_savable(graph.program.module)
    except PlanError as problem:
        log.warning("`ew.save` will refuse the pruned network: %s", problem)


def check_unpruned(
    graph: Graph, objective: Objective, loss: float, unpruned: NDArray[np.float32] | None
) -> None:
    """Warn if what is measured of the unpruned network says that something was forgotten.

    Args:
        graph: of the network.
        objective: what is measured.
        loss: of the unpruned network on the search split.
        unpruned: the same of every example [n], if known.

    Raises:
        ObjectiveError: the loss is a score.
    """
    if (found := sense(graph, objective)) is not None:
        _check_sense(found)
    if objective.recovery.kind != "none":
        _check_calibration(graph, objective, loss, unpruned)
    elif norms := batch_norms(graph.program.module):
        log.warning(
            "No recovery is set, and %d batch norms keep statistics of the unpruned network, so "
            "that masks look worse than they are. Add recovery=ew.Recovery(\"batchnorm\", inputs) "
            "to the objective; in a job, recovery = \"batchnorm\" to [objective], and a section "
            "[calibration] with rows.", len(norms),
        )  # fmt: skip


def _check_sense(found: Sense) -> None:
    wrong = mean(found.shuffled)
    if found.is_score:
        raise ObjectiveError(
            f"The unpruned network has a loss of {found.right:.4g}, and with the targets of other "
            f"examples one of {wrong:.4g}. Either the loss is a score, for which the search would "
            "find the worst network: give 1 - score, or -score. Or classes are not in the order "
            "of training."
        )
    if found.by_chance:
        log.warning(
            "The unpruned network is near chance on the search split: its loss is %.4g, and with "
            "the targets of other examples %.4g%s. Are its weights loaded, inputs normalised as "
            "in training, classes in the same order?", found.right, wrong,
            f"; the same answer for all would have {found.constant:.4g}"
            if isfinite(found.constant) else "",
        )  # fmt: skip


def _check_calibration(
    graph: Graph, objective: Objective, loss: float, unpruned: NDArray[np.float32] | None
) -> None:
    """Warn if statistics of the calibration data harm a network that lacks nothing."""
    found = recalibrated(graph, objective)
    certain = found.each is None or unpruned is None or (
        compare(found.each.numpy(), unpruned).interval[0] > 0
    )  # fmt: skip
    if certain and found.loss - loss > HARM * abs(loss):
        log.warning(
            "With nothing removed, batch-norm statistics of the calibration data raise the "
            "loss from %.4g to %.4g, and every recovered mask loses as much. Calibrate on "
            "examples as training saw them (its augmentation, padding, normalisation), at "
            "least some hundred of them.", loss, found.loss,
        )  # fmt: skip


def _example(
    evaluations: Iterable[Evaluation], graph: Graph, objective: Objective, split: Split
) -> Evaluation | None:
    """A stored evaluation of the whole of a split, that of the unpruned network where there is."""
    whole = objective.samples(split)
    found = [e for e in evaluations if e.split == split and e.ok and e.samples == whole]
    unpruned = str(graph.empty)
    return min(found, key=lambda e: e.mask != unpruned, default=None)


def _difference(storage: Storage, stored: Evaluation, outcome: Outcome, alike: float) -> str | None:
    """How a measurement differs from the stored one, in words; None if it does not."""
    now = outcome.evaluation
    if now.loss is None:
        return f"it holds a loss of {stored.loss:.6g}, and now there is none: {now.error}"
    assert stored.loss is not None
    each = storage.losses(stored.mask, stored.split, stored.samples)
    was, own = np.array([stored.loss]), np.array([now.loss])
    if each is not None and outcome.each is not None:
        was, own = np.append(was, each), np.append(own, outcome.each.numpy())
    if np.abs(was - own).mean() > alike * max(np.abs(was).mean(), np.abs(own).mean()):
        return f"it holds a loss of {stored.loss:.6g}, and measured again it is {now.loss:.6g}"
    for name, value in stored.metrics.items():
        other = now.metrics.get(name, np.nan)
        flips = FLIPS / stored.samples if name in outcome.counts else 0.0
        slack = max(alike * max(abs(value), abs(other)), flips)
        if not (abs(value - other) <= slack or (np.isnan(value) and np.isnan(other))):
            return f"it holds {name} {value:.6g}, and measured again it is {other:.6g}"
    return None
