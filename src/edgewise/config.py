"""A job as a TOML file, read into frozen dataclasses; every mistake is named with its place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from .engine import EngineOptions
from .errors import ConfigError, EdgewiseError
from .heal import Healing
from .objective import FEWEST, RecoveryKind
from .records import Budget
from .spelling import nearest
from .tables import (
    LIBRARIES,
    Count,
    Function,
    Rows,
    Share,
    Source,
    Storage,
    Whole,
    plain,
    read_section,
    shown,
)

LOSSES = ("cross_entropy", "calibrated_cross_entropy", "mse")
METRICS = ("accuracy", "top5")


@dataclass(frozen=True, slots=True)
class ModelSection:
    """The model: where it comes from, its weights, where it runs, and the shape of one input."""

    source: Source
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    input: tuple[Count, ...] | None = None
    strict: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if ".py:" not in self.source and not self.source.startswith(
            tuple(f"{x}:" for x in LIBRARIES)
        ):
            raise ValueError(
                "source must be FILE.py:FUNCTION, torchvision:NAME or timm:NAME, "
                f"got {Path(self.source).name!r}"
            )


@dataclass(frozen=True, slots=True)
class DataSection:
    """The labelled examples, how they become tensors, and which rows serve which purpose."""

    source: Source
    image: str = "image"
    label: str = "label"
    size: tuple[Count, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    batch: Count = 250
    search: Rows = field(default=Rows(0, 500))
    verify: Rows = field(default=Rows(500, 2500))
    report: Rows = field(default=Rows(2500, None))

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std, default=1.0) <= 0:
            raise ValueError(
                "mean and std must have one number a channel each, std above 0; got mean "
                f"{list(self.mean)}, std {list(self.std)}"
            )
        if self.size is not None and len(self.size) != 2:
            raise ValueError(f"size must be [height, width], got {list(self.size)}")
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
    """The rows from which recovery takes statistics; all other keys are those of [data]."""

    rows: Rows
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveSection:
    """What an evaluation measures, and the recovery before it."""

    loss: Function = field(default=Function("cross_entropy"))
    metrics: tuple[Function, ...] = field(default=(Function("accuracy"),))
    recovery: RecoveryKind = "none"

    def __post_init__(self) -> None:
        _check_name("loss", self.loss, LOSSES)
        for metric in self.metrics:
            _check_name("metrics", metric, METRICS)


@dataclass(frozen=True, slots=True)
class UnitsSection:
    """Which units a mask may remove; `only` and `exclude` are globs on unit names.

    Widths ("hidden", "heads", "channels") are cut into `slices` nested parts, and what remains of
    each is a multiple of `round_to` channels.
    """

    granularity: tuple[Literal["edge", "layer", "hidden", "heads", "channels", "raw"], ...] = (
        "edge",
        "layer",
    )
    slices: Count = 8
    round_to: Count = 1
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchSection:
    """How long to search, and how."""

    evaluations: Count = 200
    seed: Whole = 0
    surrogate: str = "auto"
    finalists: Count = 16
    certify: Whole = 0
    patience: Count | None = None

    def __post_init__(self) -> None:
        if self.surrogate == "auto":
            return
        from .surrogates.searcher import NAMES  # which imports scikit-learn

        if self.surrogate not in NAMES:
            raise ValueError(
                f"surrogate {self.surrogate!r} is none that can search."
                f"{nearest(self.surrogate, NAMES)}"
            )


@dataclass(frozen=True, slots=True)
class StudySection:
    """Where evaluations are kept; by default in the output directory, named after the file."""

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
    """Fine-tuning after pruning: the training rows, how they vary, and what `Healing` takes.

    Images are shifted by up to `shift` pixels and, with `mirror`, every other one mirrored, at
    random. All other keys of the data are those of [data].
    """

    rows: Rows
    source: Source | None = None
    batch: Count = 64
    shift: Whole = 0
    mirror: bool = False
    seed: Whole = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    epochs: Count = 3
    patience: Count | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill must be between 0 and 1, got {self.distill}")
        for name in ("lr", "temperature", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class LatencySection:
    """What a latency budget holds for, and the file of the latency table."""

    batch: Count = 1
    threads: Count | None = None
    device: str | None = None
    table: Path | None = None


@dataclass(frozen=True, slots=True)
class OutputSection:
    """Where results go; by default a folder beside the file, named after it."""

    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole job. Every path in it is absolute."""

    path: Path
    model: ModelSection
    data: DataSection
    calibration: CalibrationSection | None = None
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    units: UnitsSection = field(default_factory=UnitsSection)
    budget: Budget | None = None
    search: SearchSection = field(default_factory=SearchSection)
    study: StudySection = field(default_factory=StudySection)
    output: OutputSection = field(default_factory=OutputSection)
    engine: EngineOptions = field(default_factory=EngineOptions)
    ray: RaySection | None = None
    heal: HealSection | None = None
    latency: LatencySection = field(default_factory=LatencySection)

    @property
    def directory(self) -> Path:
        """The output directory."""
        return self.output.directory or self.path.with_name(f"{self.path.stem}-pruned")

    @property
    def storage(self) -> str:
        """The database URL of the study."""
        return self.study.storage or f"sqlite:///{self.directory / 'study.db'}"

    @property
    def latency_table(self) -> Path:
        """The file of the latency table."""
        return self.latency.table or self.directory / "latency.json"

    @property
    def name(self) -> str:
        """The name of the study in its database."""
        return self.study.name or self.path.stem

    @property
    def calibration_data(self) -> DataSection:
        """[data] with the source that calibration reads."""
        own = self.calibration.source if self.calibration else None
        return replace(self.data, source=own or self.data.source)


def read_config(path: str | Path) -> Config:
    """The job that a TOML file describes.

    Args:
        path: the file; relative paths in it are relative to its folder.

    Raises:
        ConfigError: the file, a section, a key or a value is wrong; names it and the nearest known.

    Examples:
        >>> read_config(job).search.evaluations
        200
    """
    path = Path(path).expanduser().absolute()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        config = Config(path=path, **_sections(tables, path.parent))
        _check_calibration(config)
        _check_heal(config)
    except ValueError as error:
        raise ConfigError(_sentence(f"{path.name}: {error}")) from error
    return config


def _sections(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    hints = {k: v for k, v in get_type_hints(Config, include_extras=True).items() if k != "path"}
    for name, table in tables.items():
        if name not in hints:
            raise ValueError(f"unknown section [{name}].{nearest(name, hints)}")
        if not isinstance(table, dict):
            raise ValueError(f"[{name}] must be a section, got {shown(table)}")
    for name in ("model", "data"):
        if name not in tables:
            raise ValueError(f"section [{name}] is missing; it needs at least the key source")
    return {name: read_section(plain(hints[name]), name, tables[name], folder) for name in tables}


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _check_name(key: str, name: str, known: Sequence[str]) -> None:
    if ".py:" not in name and name not in known:
        raise ValueError(
            f"{key} {name!r} is neither built in nor FILE.py:FUNCTION.{nearest(name, known)}"
        )


def _check_calibration(config: Config) -> None:
    rows = config.calibration and config.calibration.rows
    wanted = config.objective.recovery != "none"
    if wanted and not rows:
        raise ValueError(
            f'[objective] recovery "{config.objective.recovery}" needs a section [calibration] '
            "with source and rows"
        )
    if not rows:
        return
    if not wanted:
        raise ValueError(
            '[calibration] has no effect unless [objective] recovery = "batchnorm" or "linear"'
        )
    count = None if rows.stop is None else rows.stop - rows.start
    if config.objective.recovery == "linear" and count is not None and count < FEWEST:
        raise ValueError(
            f'[calibration] rows "{rows}" are {count} examples, to which recovery "linear" fits '
            f"weights; give at least {FEWEST}, better 500 to 2 000"
        )
    if config.calibration_data.source != config.data.source:
        return
    for name, split in config.data.splits.items():
        if rows.overlaps(split):
            raise ValueError(
                f"[calibration] rows {rows} overlap the {name} split {split} of [data]"
            )


def _check_heal(config: Config) -> None:
    heal = config.heal
    if heal is None or (heal.source or config.data.source) != config.data.source:
        return
    for name, split in config.data.splits.items():
        if heal.rows.overlaps(split):
            raise ValueError(f"[heal] rows {heal.rows} overlap the {name} split {split} of [data]")


def override(
    config: Config,
    evaluations: int | None = None,
    budget: Sequence[str] = (),
    seed: int | None = None,
    ray: str | None = None,
    certify: int | None = None,
    patience: int | None = None,
) -> Config:
    """The config with what a command line says instead; its limits replace the whole budget.

    `ray` is an address, or empty for that of the config.
    """
    search = replace(
        config.search,
        evaluations=config.search.evaluations if evaluations is None else evaluations,
        seed=config.search.seed if seed is None else seed,
        certify=config.search.certify if certify is None else certify,
        patience=config.search.patience if patience is None else patience,
    )
    limits = parse_budget(budget) if budget else config.budget
    workers = config.ray
    if ray is not None:
        workers = workers or RaySection()
        workers = replace(workers, address=ray or workers.address)
    return replace(config, search=search, budget=limits, ray=workers)


def parse_model(table: Mapping[str, Any], folder: Path) -> ModelSection:
    """A [model] section from a table.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    try:
        section: ModelSection = read_section(ModelSection, "model", table, folder)
    except ValueError as error:
        raise ConfigError(_sentence(str(error))) from error
    return section


def parse_budget(limits: Iterable[str]) -> Budget:
    """A budget from texts such as "macs=0.7" (a fraction) or "params=20M" (absolute).

    Raises:
        ConfigError: unknown name, one that is limited twice, or a limit that cannot be used.
    """
    known = [f.name for f in fields(Budget)]
    values: dict[str, str] = {}
    for text in limits:
        name, _, number = (part.strip() for part in text.partition("="))
        if name not in known:
            raise ConfigError(
                f"--budget {text}: no limit is called {name!r}.{nearest(name, known)}"
            )
        if name in values:
            raise ConfigError(
                f"--budget limits {name} twice, to {values[name]} and {number}: keep one of them."
            )
        values[name] = number
    try:
        return Budget(**values)
    except EdgewiseError as error:
        raise ConfigError(f"--budget: {error}") from error
