"""The directory in which a job keeps its files, and the JSON files there."""

from pathlib import Path
from typing import Any

from ...errors import ConfigError, PlanError
from ...values.files import read_json
from ...values.reading import read_value


def make_directory(path: Path) -> None:
    """The directory, made if need be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made a directory: {error.strerror}.") from error


def read_kept(path: Path, kind: Any) -> Any:
    """A JSON file of ours in an output directory as values of `kind`.

    Raises:
        PlanError: it is damaged.
    """
    try:
        return read_value(kind, read_json(path), path.stem)
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{path} is damaged: {error}. Remove it; the command that wrote it writes it again."
        ) from error
