"""Healing as a job file asks for it: the training data, varied at random, and what comes of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ...errors import ConfigError
from ...evaluation.losses import LOSSES
from ...evaluation.objective import Objective
from ...graph.graph import Graph
from ...pruning.heal import Healing, heal
from ...pruning.plan import Measured, Plan
from ...pruning.prune import unpruned
from ...values.files import write_text
from ...values.nested import copies_of, logits_of, shapes_of
from .config import Config
from .datasets import Batch, following, load_batches
from .kept import read_kept
from .sections import DataSection, HealSection
from .toml_sections import Rows

CHECKPOINT = "heal.checkpoint"


class Training:
    """Batches in a new order every epoch, images shifted and mirrored at random.

    What an epoch gives depends on the seed and on its number alone, so that an interrupted
    training goes on as it would have.

    Args:
        inputs: [n, ...], or several of these by name; images are [n, channels, height, width].
        targets: [n, ...].
        batch: examples at a time.
        shift: pixels by which an image is moved at most, zeros coming in.
        mirror: whether every image is mirrored with a chance of one half.
        seed: of all random numbers.
    """

    def __init__(
        self, inputs: Any, targets: Tensor, batch: int, *, shift: int = 0,
        mirror: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self.inputs, self.targets, self.batch = inputs, targets, batch
        self.shift, self.mirror, self.seed, self.epoch = shift, mirror, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.targets) // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(len(self.targets), generator=random)
        for rows in order.split(self.batch):
            inputs = pytree.tree_map(lambda x, rows=rows: x[rows], self.inputs)
            yield self._varied(inputs, random), self.targets[rows]

    def _varied(self, images: Any, random: torch.Generator) -> Any:
        if not (self.mirror or self.shift):
            return images
        count = len(images)
        if self.mirror:
            turned = torch.rand(count, generator=random) < 0.5
            images = torch.where(turned[:, None, None, None], images.flip(-1), images)
        if not self.shift:
            return images
        height, width = images.shape[-2:]
        padded = F.pad(images, (self.shift,) * 4)
        places = torch.randint(0, 2 * self.shift + 1, (count, 2), generator=random).tolist()
        moved = [x[:, i : i + height, j : j + width]
                 for x, (i, j) in zip(padded, places, strict=True)]  # fmt: skip
        return torch.stack(moved)


def require_healing(config: Config, graph: Graph) -> None:
    """Whether the healing that a config asks for, if any, can begin.

    Called before a search, so that its mistakes show before hours are spent. Of the training rows
    the first and, where the range ends, the last are read.

    Raises:
        ConfigError: a row or accelerate is missing, the data do not fit the section, or the model
            gives what cannot be taught.
    """
    section = config.heal
    if section is None:
        return
    _require_accelerate(section)
    data, rows = following(config.data, graph.program.args[0]), section.rows
    for row in sorted({rows.start, (rows.stop or rows.start + 1) - 1}):
        try:
            pairs = _pairs(data, section, Rows(row, row + 1))
        except ConfigError:
            _pairs(data, section, rows)  # it says how many rows there are
            raise
        _training(section, pairs)
    program = graph.program
    with torch.no_grad():
        args, kwargs = copies_of(program.example)
        outputs = unpruned(graph).eval()(*args, **kwargs)
    if section.distill and config.objective.run is not None:
        raise ConfigError("[heal] with `run` in [objective] learns from labels: set distill = 0.")
    if section.distill and not isinstance(logits_of(outputs), Tensor):
        raise ConfigError(
            f"[heal] the unpruned model teaches by logits, one tensor; this model gives a "
            f"{type(outputs).__name__}. Set distill = 0, or return logits, alone or by that name."
        )


def heal_job(
    config: Config, graph: Graph, objective: Objective, small: nn.Module,
    progress: Callable[[int, int, float], None] | None = None,
) -> nn.Module:  # fmt: skip
    """The pruned model, fine-tuned as [heal] says, the epoch that is best on the verify split.

    It is resumed from a checkpoint in the output directory; `forget` it when the result is kept.

    Raises:
        ConfigError: the data or accelerate are missing.
    """
    section = config.heal
    assert section is not None
    data = following(config.data, graph.program.args[0])
    likeness = config.objective.loss == "likeness"  # to the teacher, beside which there is the text
    return heal(
        small,
        _training(section, _pairs(data, section, section.rows)),
        teacher=unpruned(graph) if section.distill else None,
        loss=LOSSES["perplexity"] if likeness else objective.loss,
        run=objective.run,
        settings=Healing(**{f.name: getattr(section, f.name) for f in fields(Healing)}),
        validate=lambda model: objective.score(model, "verify").loss,
        checkpoint=config.directory / CHECKPOINT,
        accelerator=_accelerator(section),
        progress=progress,
    )


def forget(config: Config) -> None:
    """Delete the checkpoint of a healing whose result has been written."""
    (config.directory / CHECKPOINT).unlink(missing_ok=True)


def _pairs(data: DataSection, section: HealSection, rows: Rows) -> list[Batch]:
    return load_batches(replace(data, source=section.source or data.source, batch=1_000), rows)


def _training(section: HealSection, pairs: list[Batch]) -> Training:
    parts, targets = zip(*pairs, strict=True)
    inputs = pytree.tree_map(lambda *tensors: torch.cat(tensors), *parts)
    pictures = isinstance(inputs, Tensor) and inputs.ndim == 4
    if (section.shift or section.mirror) and not pictures:
        shapes = shapes_of(pytree.tree_map(lambda x: x[0], inputs))
        raise ConfigError(
            f"[heal] shift and mirror are for images; the inputs have shape {shapes}."
        )
    return Training(inputs, torch.cat(targets), section.batch, shift=section.shift,
                    mirror=section.mirror, seed=section.seed)  # fmt: skip


def _require_accelerate(section: HealSection) -> None:
    if section.precision != "no" and find_spec("accelerate") is None:
        raise ConfigError("[heal] precision needs accelerate: pip install 'edgewise[heal]'.")


def _accelerator(section: HealSection) -> Any:
    if section.precision == "no":
        return None
    _require_accelerate(section)
    from accelerate import Accelerator

    return Accelerator(mixed_precision=section.precision)


def write_outcome(config: Config, plan: Plan, healed: Measured) -> Path:
    """What the healed model of a plan scores, as `healed.json` in the output directory."""
    found = {"fingerprint": plan.fingerprint, "bits": plan.bits, "healed": asdict(healed)}
    path, text = config.directory / "healed.json", json.dumps(found, indent=1) + "\n"
    write_text(path, text)
    return path


def healed_of(config: Config, plan: Plan) -> Measured | None:
    """What healing gave; None where there was none, or another mask was healed."""
    path = config.directory / "healed.json"
    if not path.exists():
        return None
    found = read_kept(path, _Healed)
    same = (found.fingerprint, found.bits) == (plan.fingerprint, plan.bits)
    return found.healed if same else None


@dataclass(frozen=True)
class _Healed:
    fingerprint: str
    bits: str
    healed: Measured
