"""What a pruned model learns from: labels, and the answers of the network that it was."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from ..errors import ObjectiveError
from ..values.nested import IGNORED, judged, logits_of


def label_loss(
    loss: Callable[[Any, Any], torch.Tensor], outputs: Any, targets: Any
) -> torch.Tensor:
    """The mean loss on labels. Numbers that differ are allowed where one side may be flattened.

    Raises:
        ObjectiveError: there are other numbers of inputs and targets.
    """
    ours, theirs = _number(outputs), _number(targets)
    if not ours or not theirs or ours == theirs:
        return judged(loss, outputs, targets).mean()  # type: ignore[no-any-return]
    unequal = ObjectiveError(
        f"A training batch has {ours} inputs, by what the model gives for them, but {theirs} "
        "targets. Every input needs its target."
    )
    if max(ours, theirs) % min(ours, theirs):
        raise unequal
    try:
        return judged(loss, outputs, targets).mean()  # type: ignore[no-any-return]
    except Exception as error:
        raise unequal from error


def teacher_loss(
    outputs: Any, wanted: Any, temperature: float, targets: Any = None
) -> torch.Tensor:
    """How far logits are from a teacher's: KL divergence of the softened answers, times t².

    Args:
        outputs: logits, [n, classes, height, width, ...] of maps or [..., classes]; by themselves
            or as "logits" among other outputs.
        wanted: the teacher's.
        temperature: t, by which both are divided (Hinton et al. 2015).
        targets: labels; what has the label -100 teaches nothing.

    Raises:
        ObjectiveError: they are no tensors, or of different shapes.
    """
    outputs, wanted = logits_of(outputs), logits_of(wanted)
    _check_teacher(outputs, wanted)
    t, axis = temperature, _class_axis(outputs)
    soft = F.kl_div(
        F.log_softmax(outputs / t, axis), F.log_softmax(wanted / t, axis), log_target=True,
        reduction="none",
    )  # fmt: skip
    each = soft.sum(axis)
    if isinstance(targets, torch.Tensor) and targets.shape == each.shape:
        each = each[targets != IGNORED]
    return t * t * each.sum() / max(each.numel(), 1)


def _check_teacher(outputs: Any, wanted: Any) -> None:
    """Raise ObjectiveError unless the model can learn the teacher's outputs: logits alike."""
    tensors = isinstance(outputs, torch.Tensor) and isinstance(wanted, torch.Tensor)
    if not tensors:
        ours, theirs = type(outputs).__name__, type(wanted).__name__
        raise ObjectiveError(
            f"A teacher's logits are followed where outputs are one tensor; the model gives a "
            f"{ours}, the teacher a {theirs}. Heal without it (distill=0, or teacher=None); to "
            "follow it in a way of your own, let the targets be its answers and the loss compare."
        )
    if outputs.shape != wanted.shape:
        raise ObjectiveError(
            f"The teacher's outputs have another shape ({list(wanted.shape)}) than the model's "
            f"({list(outputs.shape)}), so they cannot teach it. Pass the network that was pruned, "
            "or heal without it (distill=0, or teacher=None)."
        )


def _number(value: Any) -> int | None:
    """Examples in a tensor, None of anything else."""
    return len(value) if isinstance(value, torch.Tensor) and value.ndim else None


def _class_axis(outputs: torch.Tensor) -> int:
    """Where the logits of one decision lie: second in maps [n, classes, height, ...], else last."""
    return 1 if outputs.ndim >= 4 else -1
