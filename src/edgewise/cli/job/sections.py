"""The sections of a job as frozen dataclasses; docs/config.md says what their keys mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import EdgewiseError
from ...evaluation.engine import EngineOptions
from ...evaluation.losses import LOSSES, METRICS
from ...evaluation.objective import RecoveryKind
from ...pruning.heal import Healing
from ...pruning.prune import Form
from ...pruning.recorded import MOST
from ...values.spelling import nearest
from .toml_sections import (
    HF,
    LIBRARIES,
    Count,
    File,
    Function,
    Portion,
    Positive,
    RowRange,
    Rows,
    Share,
    Source,
    Storage,
    Whole,
)

CUTS = ("resize", "crop")
Surrogate = Literal[
    "auto", "UnitGP", "GraphGP", "Degree2", "Linear", "PathSum", "CrossGamma", "Logistic", "FCN",
    "Trees",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelSection:
    """The model: where it comes from, its weights, where it runs, and the shape of one input."""

    source: Source
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: File | None = None
    input: tuple[Count, ...] | None = None
    strict: bool = True
    device: str = "cpu"
    part: str | tuple[str, ...] | None = None
    costs: Literal["whole", "part"] = "whole"

    def __post_init__(self) -> None:
        known = (HF, *(f"{library}:" for library in LIBRARIES))
        if ".py:" not in self.source and not self.source.startswith(known):
            raise ValueError(
                "source must be FILE.py:FUNCTION, torchvision:NAME, timm:NAME or hf:FOLDER, "
                f"got {Path(self.source).name!r}"
            )
        if prod(self.input or ()) > MOST:
            raise ValueError(
                f"input must have at most {MOST:,} elements, got {list(self.input or ())}"
            )


@dataclass(frozen=True, slots=True)
class DataSection:
    """The labelled examples, how they become tensors, and which rows serve which purpose."""

    source: Source
    image: str = "image"
    label: str = "label"
    text: str = "text"
    tokenizer: Source | None = None
    length: Annotated[int, Field(ge=2)] | None = None
    transform: str | None = None
    channels: Count | None = None
    size: tuple[Count, ...] | None = None
    resize: Count | None = None
    crop: Count | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    batch: Count = 250
    search: RowRange = field(default=Rows(0, 500))
    verify: RowRange = field(default=Rows(500, 2500))
    report: RowRange = field(default=Rows(2500, None))

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std, default=1.0) <= 0:
            raise ValueError(
                "mean and std must have one number a channel each, std above 0; got mean "
                f"{list(self.mean)}, std {list(self.std)}"
            )
        if self.size is not None and len(self.size) != 2:
            raise ValueError(f"size must be [height, width], got {list(self.size)}")
        for one, others in (("transform", ("size", "resize", "crop", "mean")), ("size", CUTS)):
            if getattr(self, one) and (both := [key for key in others if getattr(self, key)]):
                raise ValueError(f"{one} does what {', '.join(both)} would: keep one of them")
        splits = list(self.splits.items())
        for (first, a), (second, b) in [(x, y) for i, x in enumerate(splits) for y in splits[:i]]:
            if a.overlaps(b):
                raise ValueError(
                    f"splits must be disjoint, but {second} {b} and {first} {a} overlap"
                )

    @property
    def splits(self) -> dict[str, Rows]:
        """The three row ranges by name."""
        return {"search": self.search, "verify": self.verify, "report": self.report}


@dataclass(frozen=True, slots=True)
class CalibrationSection:
    """The examples from which recovery takes statistics; all other keys are those of [data]."""

    rows: RowRange
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveSection:
    """What an evaluation measures, and the recovery before it."""

    loss: Function = "cross_entropy"
    metrics: tuple[Function, ...] = ("accuracy",)
    recovery: RecoveryKind = "none"
    run: Function | None = None
    precision: Literal["bfloat16", "float16"] | None = None
    expected: float | None = None

    def __post_init__(self) -> None:
        _check_name("loss", self.loss, LOSSES)
        for metric in self.metrics:
            _check_name("metrics", metric, METRICS)


def _check_name(key: str, name: str, known: Iterable[str]) -> None:
    if ".py:" not in name and name not in known:
        raise ValueError(
            f"{key} {name!r} is neither built in nor FILE.py:FUNCTION.{nearest(name, known)}"
        )


@dataclass(frozen=True, slots=True)
class UnitsSection:
    """Which units a mask may remove."""

    granularity: tuple[
        Literal["branch", "edge", "layer", "hidden", "heads", "channels", "raw"], ...
    ] = ("branch", "layer")
    slices: Count = 8
    round_to: Count | Mapping[str, Count] = 1
    importance: Literal["l2", "activation", "taylor"] | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    at_most: Mapping[str, Portion] = field(default_factory=dict)
    at_least: Mapping[str, Count] = field(default_factory=dict)
    tie: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchSection:
    """How long to search, and how."""

    evaluations: Count = 200
    examples: Count | None = None
    seed: Whole = 0
    surrogate: Surrogate = "auto"
    finalists: Count = 16
    certify: Whole = 0
    patience: Count | None = None


@dataclass(frozen=True, slots=True)
class StudySection:
    """Where evaluations are kept."""

    storage: Storage | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RaySection:
    """Workers on Ray; without this section one process measures."""

    address: str = "local"
    workers: Count | None = None
    threads: Count = 1
    gpus: Share | None = None


@dataclass(frozen=True, kw_only=True)
class HealSection(Healing):
    """Fine-tuning after pruning, taught by the unpruned model. Other keys are those of [data]."""

    rows: RowRange
    source: Source | None = None
    batch: Count = 64
    shift: Whole = 0
    mirror: bool = False
    seed: Whole = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    epochs: Count = Healing.epochs
    lr: Positive = Healing.lr
    distill: Portion = Healing.distill
    temperature: Positive = Healing.temperature
    clip: Positive = Healing.clip
    patience: Count | None = None


@dataclass(frozen=True, slots=True)
class LatencySection:
    """What a latency budget holds for, and the file of the latency table."""

    batch: Count = 1
    threads: Count | None = None
    device: str | None = None
    table: File | None = None


@dataclass(frozen=True, slots=True)
class OutputSection:
    """Where results go."""

    directory: File | None = None


@dataclass(frozen=True, slots=True)
class ResultSection:
    """What the pruned model is."""

    form: Form = "program"
    recovery: RecoveryKind = "none"


@dataclass(frozen=True, slots=True)
class EngineSection(EngineOptions):
    """How masks are run; none of it changes what is measured beyond rounding."""

    memory: str = "1GiB"

    def __post_init__(self) -> None:
        try:
            EngineOptions.__post_init__(self)
        except EdgewiseError as error:  # a section's own mistakes are errors of values
            raise ValueError(str(error)) from error
