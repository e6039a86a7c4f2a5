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
from .sections import DataSection
from .sources import load_loss
from .toml_sections import Rows

EXAMPLES, TOGETHER = 256, 8  # that are looked at; whose gradients take memory at a time
FLAT = 1e-5  # a change of the loss that is rounding
TOLD = {"likeness": "perplexity"}  # losses with slopes, where likeness to the model itself has none


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
        data, rows = _looked_at(config)
        few = replace(following(data, model), batch=TOGETHER)
        read = {key: value for key, value in asdict(few).items() if key not in few.splits}
        told = f"{kind} of {config.objective.loss} on {read} {rows} at {own}"
        kept = read_kept(path, _Kept) if path.exists() else None
        if kept is None or kept.of != told:
            say(f"Looking which channels matter least ({kind})")
            batches = load_batches(few, rows)[: EXAMPLES // TOGETHER]
            found = _found(config, batches, say)(graph, writes, reads)
            kept = _Kept(told, [_Scored(p.vertex, p.axis, s.tolist()) for p, s in found.items()])
            make_directory(config.directory)
            write_text(path, json.dumps(asdict(kept)) + "\n")
        return {Place(one.vertex, one.axis): np.array(one.scores) for one in kept.scores}

    return score


def kind_of(config: Config) -> str:
    """The importance that a job asks for, or the best that can be told of its model."""
    part = config.model.part
    if config.units.importance:
        return config.units.importance
    whole = part is None or isinstance(part, str)
    return "taylor" if whole and not config.objective.run else "l2"  # what needs no outputs


def _found(config: Config, batches: Sequence[Batch], say: Callable[[str], None]) -> Importance:
    by_size = importance.activation(batches)
    if kind_of(config) == "activation":
        return by_size
    loss = config.objective.loss
    by_loss = importance.taylor(batches, load_loss(TOLD.get(loss, loss)))

    def score(graph: Graph, writes: Sequence[Place], reads: Sequence[Place]) -> Scores:
        found = by_loss(graph, writes, reads)
        steepest = max((float(values.max()) for values in found.values()), default=0.0)
        if config.units.importance or steepest > FLAT**2:
            return found
        say("The loss of the unpruned model is at its least, so the size of activations decides")
        return by_size(graph, writes, reads)

    return score


def _looked_at(config: Config) -> tuple[DataSection, Rows]:
    """The examples for calibration where there are some, else those of the search."""
    if config.calibration is None:
        return config.data, config.data.search
    return config.calibration_data, config.calibration.rows


@dataclass(frozen=True)
class _Scored:
    vertex: int
    axis: int
    scores: list[float]


@dataclass(frozen=True)
class _Kept:
    of: str
    scores: list[_Scored]
