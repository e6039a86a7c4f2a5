"""A job as a TOML file, read into frozen dataclasses; every mistake is named with its place."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import with_config

from ...errors import ConfigError, EdgewiseError
from ...evaluation.objective import FEWEST
from ...graph.budget import Budget
from ...values.files import read_text
from ...values.redact import redact
from ...values.spelling import nearest
from . import sections
from .toml_sections import RULES, TEXT, read_tables, with_defaults


@with_config(RULES)
@dataclass(frozen=True, slots=True)
class Sections:
    """The sections of a job file. Every path in them is absolute.

    Raises:
        ValueError: what two of them say does not go together.
    """

    model: sections.ModelSection
    data: sections.DataSection
    calibration: sections.CalibrationSection | None = None
    objective: sections.ObjectiveSection = field(default_factory=sections.ObjectiveSection)
    units: sections.UnitsSection = field(default_factory=sections.UnitsSection)
    budget: Budget | None = None
    search: sections.SearchSection = field(default_factory=sections.SearchSection)
    study: sections.StudySection = field(default_factory=sections.StudySection)
    result: sections.ResultSection = field(default_factory=sections.ResultSection)
    output: sections.OutputSection = field(default_factory=sections.OutputSection)
    engine: sections.EngineSection = field(default_factory=sections.EngineSection)
    ray: sections.RaySection | None = None
    heal: sections.HealSection | None = None
    latency: sections.LatencySection = field(default_factory=sections.LatencySection)

    def __post_init__(self) -> None:
        self._check_calibration()
        for name, section in (("calibration", self.calibration), ("heal", self.heal)):
            if section is None or (section.source or self.data.source) != self.data.source:
                continue
            for split, rows in self.data.splits.items():
                if section.rows.overlaps(rows):
                    raise ValueError(
                        f"[{name}] rows {section.rows} overlap the {split} split {rows} of [data]"
                    )

    def _check_calibration(self) -> None:
        asked = {"objective": self.objective.recovery, "result": self.result.recovery}
        asked = {name: kind for name, kind in asked.items() if kind != "none"}
        if len(asked) == 2:
            raise ValueError(
                "[result] recovery is for masks that were measured without; [objective] has one"
            )
        if self.calibration is None:
            for name, kind in asked.items():
                raise ValueError(
                    f'[{name}] recovery "{kind}" needs a section [calibration] with source and rows'
                )
            return
        if not asked:
            raise ValueError(
                "[calibration] has no effect unless [objective] or [result] has recovery = "
                '"batchnorm" or "linear"'
            )
        (recovery,) = asked.values()
        rows = self.calibration.rows
        count = FEWEST if rows.stop is None else rows.stop - rows.start
        text = (self.calibration.source or self.data.source).startswith(TEXT)  # tokens count
        if recovery == "linear" and count < FEWEST and not text:
            raise ValueError(
                f'[calibration] rows "{rows}" are {count} examples, to which recovery "linear" '
                f"fits weights; give at least {FEWEST}, better 500 to 2 000"
            )


@dataclass(frozen=True, slots=True)
class Config(Sections):
    """A whole job: what its file says, and what follows from the file's name."""

    path: Path = field(kw_only=True)

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
    def calibration_data(self) -> sections.DataSection:
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
        tables = tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        hint = " Write paths with /, or in single quotes." if "\\" in str(error) else ""
        raise ConfigError(redact(f"{path} is not valid TOML: {error}.{hint}")) from error
    found = read_tables(Sections, with_defaults(tables), path.parent, path.name)
    return Config(**{f.name: getattr(found, f.name) for f in fields(found)}, path=path)


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
    given: dict[str, Any] = {
        "evaluations": evaluations, "seed": seed, "certify": certify, "patience": patience,
    }  # fmt: skip
    search = replace(config.search, **{k: v for k, v in given.items() if v is not None})
    limits = parse_budget(budget) if budget else config.budget
    workers = config.ray
    if ray is not None:
        workers = workers or sections.RaySection()
        workers = replace(workers, address=ray or workers.address)
    return replace(config, search=search, budget=limits, ray=workers)


@with_config(RULES)
@dataclass(frozen=True, slots=True)
class _Named:
    model: sections.ModelSection


def parse_model(table: Mapping[str, Any], folder: Path) -> sections.ModelSection:
    """A [model] section from a table.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    return read_tables(_Named, {"model": table}, folder).model


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
