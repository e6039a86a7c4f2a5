"""Recovering accuracy of a pruned model by fine-tuning, taught by the original."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .errors import EdgewiseWarning, ObjectiveError

Validate = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Healing:
    """How to fine-tune.

    Args:
        epochs: passes over the data.
        lr: peak learning rate of SGD with Nesterov momentum; a short warm-up, then a cosine.
        momentum: of SGD.
        weight_decay: on everything but biases and norms.
        distill: weight of the teacher's soft targets against the loss on labels, 0 to 1 (Hinton
            et al. 2015).
        temperature: of the soft targets.
        clip: largest gradient norm.
    """

    epochs: int = 3
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    distill: float = 0.5
    temperature: float = 4.0
    clip: float = 5.0


def heal(
    small: nn.Module,
    loader: Iterable[Any],
    *,
    teacher: nn.Module | None = None,
    loss: Callable[[Any, Any], torch.Tensor] = F.cross_entropy,
    settings: Healing | None = None,
    validate: Validate | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> nn.Module:
    """Fine-tune a pruned model and return the healed copy; `small` is not changed.

    Args:
        small: what `ew.prune` returned.
        loader: training data, an iterable of (inputs, targets) batches that can be read again
            every epoch (a DataLoader; shuffling is its business).
        teacher: the unpruned model, for distillation; None = labels only.
        loss: called as loss(outputs, targets).
        settings: see `Healing`.
        validate: gives a loss of a model on held-out data, lower is better; the epoch with the
            lowest is returned. Never pass test data.
        progress: called as progress(step, steps, loss).

    Returns:
        The healed module, in eval mode. If the loss stops being finite, training stops there with
        a warning, and the best module so far is returned.

    Raises:
        ObjectiveError: the loader is empty, or teacher and model disagree in shape.
    """
    settings = settings or Healing()
    model = copy.deepcopy(small).train()
    teacher = None if teacher is None else copy.deepcopy(teacher).eval()
    steps = _count(loader) * settings.epochs
    optimizer = _optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    best, lowest, step = copy.deepcopy(model), math.inf, 0
    if validate is not None:
        lowest = validate(best.eval())
    for epoch in range(settings.epochs):
        for inputs, targets in loader:
            value = _value(model, teacher, inputs, targets, loss, settings)
            if not torch.isfinite(value):
                _warn_stopped(epoch, step, float(value.detach()))
                return best.eval()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            step += 1
            if progress is not None:
                progress(step, steps, float(value.detach()))
        score = -float(epoch) if validate is None else validate(copy.deepcopy(model).eval())
        if score < lowest:
            best, lowest = copy.deepcopy(model), score
    return best.eval()


def _count(loader: Iterable[Any]) -> int:
    """Batches of an epoch."""
    if iter(loader) is loader:
        raise ObjectiveError(
            "The training loader can be read only once (a generator or iterator), but healing "
            "reads it every epoch. Pass a DataLoader or a list of batches."
        )
    try:
        batches = len(loader)  # type: ignore[arg-type]
    except TypeError:
        batches = sum(1 for _ in loader)
    if not batches:
        raise ObjectiveError("The training loader is empty.")
    return batches


def _warn_stopped(epoch: int, step: int, value: float) -> None:
    warnings.warn(
        f"Healing stopped in epoch {epoch + 1}, step {step + 1}: the loss is {value}. The best "
        "model so far is returned; a lower learning rate usually helps.",
        EdgewiseWarning,
        stacklevel=3,
    )


def _optimizer(model: nn.Module, settings: Healing) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ObjectiveError("Every parameter is frozen (requires_grad=False): nothing can heal.")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [g for g in groups if g["params"]], settings.lr, settings.momentum, nesterov=True
    )


def _rate(step: int, steps: int) -> float:
    """Warm up over the first twentieth, then half a cosine down to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _value(
    model: nn.Module, teacher: nn.Module | None, inputs: Any, targets: Any,
    loss: Callable[[Any, Any], torch.Tensor], settings: Healing,
) -> torch.Tensor:  # fmt: skip
    args = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    outputs = model(*args)
    hard = loss(outputs, targets).mean()
    if teacher is None or not settings.distill:
        return hard
    with torch.no_grad():
        wanted = teacher(*args)
    if not isinstance(outputs, torch.Tensor) or outputs.shape != getattr(wanted, "shape", None):
        raise ObjectiveError(
            "The teacher's outputs have another shape than the model's, so they cannot teach it. "
            "Pass the network that was pruned, or teacher=None."
        )
    t = settings.temperature
    soft = F.kl_div(
        F.log_softmax(outputs / t, -1), F.log_softmax(wanted / t, -1), log_target=True,
        reduction="batchmean",
    )  # fmt: skip
    return (1 - settings.distill) * hard + settings.distill * t * t * soft
