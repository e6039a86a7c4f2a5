"""Recovering accuracy of a pruned model by fine-tuning, taught by the original."""

import copy
import hashlib
import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import EdgewiseError, EdgewiseWarning, ObjectiveError
from ..values.arguments import call
from ..values.description import raw
from ..values.files import write_atomically
from ..values.nested import device_of, judged, moved
from .distillation import label_loss, teacher_loss

Validate = Callable[[nn.Module], float]

_UNREADABLE = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError,
    pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Healing:
    """How to fine-tune.

    Args:
        epochs: passes over the data.
        lr: peak learning rate; a short warm-up, then a cosine.
        optimizer: "sgd" with Nesterov momentum, or "adamw", which wants a far smaller `lr`.
        momentum: of SGD.
        weight_decay: on everything but biases and norms.
        distill: weight of the teacher's soft targets against the loss on labels, 0 to 1 (Hinton
            et al. 2015).
        temperature: of the soft targets.
        clip: largest gradient norm.
        patience: epochs without a lower validation loss after which it ends; None = never.

    Examples:
        >>> ew.Healing(epochs=10, optimizer="adamw", lr=3e-4, patience=2).distill
        0.5
    """

    epochs: int = 3
    lr: float = 0.02
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    distill: float = 0.5
    temperature: float = 4.0
    clip: float = 5.0
    patience: int | None = None


def heal(
    small: nn.Module,
    loader: Iterable[Any],
    *,
    teacher: nn.Module | None = None,
    loss: Callable[[Any, Any], torch.Tensor] = F.cross_entropy,
    settings: Healing | None = None,
    validate: Validate | None = None,
    checkpoint: str | Path | None = None,
    accelerator: Any = None,
    progress: Callable[[int, int, float], None] | None = None,
    run: Callable[[nn.Module, Any], Any] | None = None,
) -> nn.Module:
    """Fine-tune a pruned model and return the healed copy; `small` is not changed.

    Args:
        small: what `ew.prune` returned.
        loader: training data, an iterable of (inputs, targets) batches, with inputs as
            `ew.Objective` takes them, that can be read again every epoch (a DataLoader; shuffling
            is its business). If it has `set_epoch`, that is called with the number of each epoch,
            as samplers of PyTorch expect it.
        teacher: the unpruned model, for distillation; None = labels only. Its outputs are logits,
            [n, classes, height, width, ...] of maps or [..., classes] of anything else, or have
            them as "logits". What has the label -100 is not learnt.
        loss: called as loss(outputs, targets).
        settings: see `Healing`.
        validate: gives a loss of a model on held-out data, lower is better; the epoch with the
            lowest is returned. Never pass test data.
        checkpoint: a file that is written after every epoch; if it exists, healing goes on from
            there. With a loader whose order depends on the epoch alone the result is the same as
            without the interruption.
        accelerator: an `accelerate.Accelerator`, for devices, mixed precision and several GPUs.
        progress: called as progress(step, steps, loss), the loss being the mean of the epoch so
            far.
        run: called as run(model, (inputs, targets)) where calling the model on the inputs is not
            enough, as that of `ew.Objective`, but in train mode. It needs labels alone.

    Returns:
        The healed module, in eval mode. If the loss stops being finite, training stops there with
        a warning, and the best module so far is returned.

    Raises:
        ObjectiveError: the loader is empty, a batch has other numbers of inputs and targets, or
            teacher and model disagree in shape.
        EdgewiseError: the checkpoint is of another model or of other settings.

    Examples:
        >>> small = ew.prune(graph, graph.mask([0]))
        >>> healed = ew.heal(small, batches, teacher=model, settings=ew.Healing(epochs=1))
    """
    if run is not None and teacher is not None:
        raise ObjectiveError("A teacher teaches by logits, and `run` may give anything: give one.")
    settings = settings or Healing()
    own = _Run(small, loader, teacher, settings, accelerator, run)
    place = None if checkpoint is None else Path(checkpoint)
    if place is not None and place.exists():
        own.load(place)
    elif validate is not None:
        own.lowest = validate(copy.deepcopy(small).eval())
    while own.epoch < settings.epochs and not own.tired:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(own.epoch)
        if not own.train(loss, progress):
            break
        own.judge(validate)
        if place is not None and own.first_process:
            own.save(place)
    if validate is not None and own.epoch and own.stale == own.epoch:
        warnings.warn(
            f"None of {own.epoch} epochs has a lower validation loss than the pruned model "
            f"({own.lowest:.4g}), whose weights are returned as they are. Try a lower learning "
            "rate, another optimizer, or more epochs.",
            EdgewiseWarning,
            stacklevel=2,
        )
    best = copy.deepcopy(small)
    best.load_state_dict(own.best)
    return best.eval()


class _Run:
    """The state of a healing: what a checkpoint keeps, and what it needs to go on."""

    def __init__(
        self, small: nn.Module, loader: Iterable[Any], teacher: nn.Module | None,
        settings: Healing, accelerator: Any, run: Callable[[nn.Module, Any], Any] | None,
    ) -> None:  # fmt: skip
        self.settings, self.accelerator, self.run = settings, accelerator, run
        self.batches, self.loader = _count(loader), loader
        self.best = {k: v.detach().clone() for k, v in small.state_dict().items()}
        self.digest = _digest(self.best, settings)
        self.model = copy.deepcopy(small).train()
        self.teacher = None if teacher is None else copy.deepcopy(teacher).eval()
        self.optimizer: Any = _optimizer(self.model, settings)
        if accelerator is not None:
            prepared = accelerator.prepare(self.model, self.optimizer, loader)
            self.model, self.optimizer, self.loader = prepared
            if self.teacher is not None:
                self.teacher.to(accelerator.device)
            self.batches = _count(self.loader)
        steps = self.batches * settings.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            getattr(self.optimizer, "optimizer", self.optimizer), lambda step: _rate(step, steps)
        )
        self.first_process: bool = accelerator is None or accelerator.is_main_process
        self.lowest, self.epoch = math.inf, 0
        self.stale = 0  # epochs since the best one

    @property
    def tired(self) -> bool:
        """Whether it has not become better for too long."""
        return self.settings.patience is not None and self.stale >= self.settings.patience

    def train(self, loss: Callable[[Any, Any], Any], progress: Any) -> bool:
        """One epoch; whether the loss stayed finite."""
        steps, step = self.batches * self.settings.epochs, self.batches * self.epoch
        first, total = step, 0.0
        self.model.train()
        for inputs, targets in self.loader:
            with self._precision():
                if self.run is not None:
                    outputs = self.run(self.model, (inputs, targets))
                    value = judged(loss, outputs, targets).mean()
                else:
                    value = _value(self.model, self.teacher, inputs, targets, loss, self.settings)
            if not torch.isfinite(value):
                warnings.warn(
                    f"Healing stopped in epoch {self.epoch + 1}, step {step + 1}: the loss is "
                    f"{float(value.detach())}. The best model so far is returned; a lower "
                    "learning rate usually helps.",
                    EdgewiseWarning,
                    stacklevel=3,
                )
                return False
            self.optimizer.zero_grad(set_to_none=True)
            self._backward(value)
            self.optimizer.step()
            self.schedule.step()
            step += 1
            if progress is not None and self.first_process:
                total += float(value.detach())
                progress(step, steps, total / (step - first))
        return True

    def _precision(self) -> AbstractContextManager[Any]:
        if self.accelerator is None:
            return nullcontext()
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def _backward(self, value: torch.Tensor) -> None:
        if self.accelerator is None:
            value.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        else:
            self.accelerator.backward(value)
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)

    def judge(self, validate: Validate | None) -> None:
        """Keep this epoch's weights if they are the best; without validation the last are."""
        self.epoch += 1
        plain = self._plain()
        score = -math.inf if validate is None else validate(copy.deepcopy(plain).eval())
        self.stale += 1
        if validate is None or score < self.lowest:
            self.best = {k: v.detach().cpu().clone() for k, v in plain.state_dict().items()}
            self.lowest, self.stale = score, 0

    def _plain(self) -> nn.Module:
        if self.accelerator is None:
            return self.model
        plain: nn.Module = self.accelerator.unwrap_model(self.model)
        return plain

    def save(self, path: Path) -> None:
        """Write the state, all or nothing."""
        state = {
            "digest": self.digest, "epoch": self.epoch, "stale": self.stale,
            "lowest": self.lowest, "best": self.best, "model": self._plain().state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
        }  # fmt: skip
        buffer = io.BytesIO()  # torch's writer of files ends the process where the disk is full
        torch.save(state, buffer)
        try:
            write_atomically(path, lambda to: to.write_bytes(buffer.getbuffer()))
        except OSError as error:
            raise EdgewiseError(f"The checkpoint cannot be written to {path}: {error}") from error

    def load(self, path: Path) -> None:
        """Go on from a file.

        Raises:
            EdgewiseError: it is damaged, or of another model or of other settings.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            digest = state.pop("digest")
        except _UNREADABLE as error:
            raise EdgewiseError(
                f"{path} is no checkpoint of a healing ({type(error).__name__}). Delete it to "
                "start anew."
            ) from error
        if digest != self.digest:
            raise EdgewiseError(
                f"{path} belongs to another model or to other settings. Name another checkpoint, "
                "or delete it to start anew."
            )
        try:
            self._plain().load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.best, self.lowest = state["best"], state["lowest"]
            self.epoch, self.stale = int(state["epoch"]), int(state["stale"])
        except _UNREADABLE as error:
            raise EdgewiseError(f"{path} is damaged: {error}. Delete it to start anew.") from error


def _digest(state: dict[str, torch.Tensor], settings: Healing) -> str:
    """Of the weights to heal and of the settings; a longer training is another one too."""
    digest = hashlib.sha256(repr(sorted(asdict(settings).items())).encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(raw(tensor))
    return digest.hexdigest()


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


def _optimizer(model: nn.Module, settings: Healing) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ObjectiveError("Every parameter is frozen (requires_grad=False): nothing can heal.")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, settings.lr)
    if settings.optimizer != "sgd":
        raise EdgewiseError(f'optimizer must be "sgd" or "adamw", got {settings.optimizer!r}.')
    return torch.optim.SGD(groups, settings.lr, settings.momentum, nesterov=True)


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
    outputs = call(model, inputs)
    hard = label_loss(loss, outputs, targets)
    if teacher is None or not settings.distill:
        return hard
    with torch.no_grad():
        wanted = moved(call(teacher, inputs), device_of(outputs))
    soft = teacher_loss(outputs, wanted, settings.temperature, targets)
    return (1 - settings.distill) * hard + settings.distill * soft
