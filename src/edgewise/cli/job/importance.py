"""In which order the channels of a job's widths go, worked out once and kept."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from torch import nn

from ...graph import importance
from ...graph.coupling import Place
from ...graph.graph import Graph
from ...graph.importance import Importance, Scores
from ...study.provenance import weights_digest
from ...values.files import write_text
from .config import Config
from .datasets import Batch, following, load_batches
from .kept import make_directory, read_kept
from .sources import load_loss

EXAMPLES, TOGETHER = 256, 8  # that are looked at; whose gradients take memory at a time


def importance_of(config: Config, model: nn.Module, say: Callable[[str], None]) -> Importance:
    """What orders the channels of each width of a job's model.

    `importance.json` in the output directory keeps the scores, so that all commands of a job speak
    of the same units.

    Raises (what is returned, once it is asked):
        ConfigError: the data cannot be read.
        EdgewiseError: the loss has no gradient.
    """
    kind = kind_of(config)
    if kind == "l2":
        return importance.l2

    def score(graph: Graph, writes: Sequence[Place], reads: Sequence[Place]) -> Scores:
        path = config.directory / "importance.json"
        own = f"{graph.fingerprint} {weights_digest(graph)}"
        told = f"{kind} of {config.objective.loss} on {_rows(config)} at {own}"
        kept = read_kept(path, _Kept) if path.exists() else None
        if kept is None or kept.of != told:
            say(f"Looking which channels matter least ({kind})")
            batches = _batches(config, model)
            if kind == "taylor":
                found = importance.taylor(batches, load_loss(config.objective.loss))
            else:
                found = importance.activation(batches)
            scores = found(graph, writes, reads)
            kept = _Kept(told, [_Scored(p.vertex, p.axis, s.tolist()) for p, s in scores.items()])
            make_directory(config.directory)
            write_text(path, json.dumps(asdict(kept)) + "\n")
        return {Place(one.vertex, one.axis): np.array(one.scores) for one in kept.scores}

    return score


def kind_of(config: Config) -> str:
    """The importance that a job asks for, or the best that its loss can tell."""
    part = config.model.part
    if config.units.importance:
        return config.units.importance
    if config.objective.run or (part is not None and not isinstance(part, str)):
        return "l2"  # no output of the model is at hand
    return "activation" if config.objective.loss == "likeness" else "taylor"  # which is flat there


def _rows(config: Config) -> str:
    if config.calibration is None:
        return f"{config.data.source} {config.data.search}"
    return f"{config.calibration_data.source} {config.calibration.rows}"


def _batches(config: Config, model: nn.Module) -> list[Batch]:
    """A few examples at a time, of those for calibration where there are some."""
    data, rows = config.data, config.data.search
    if config.calibration is not None:
        data, rows = config.calibration_data, config.calibration.rows
    few = replace(following(data, model), batch=TOGETHER)
    return load_batches(few, rows)[: EXAMPLES // TOGETHER]


@dataclass(frozen=True)
class _Scored:
    vertex: int
    axis: int
    scores: list[float]


@dataclass(frozen=True)
class _Kept:
    of: str
    scores: list[_Scored]
