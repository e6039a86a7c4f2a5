"""The directory of a job's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.cli.job.kept import make_directory, read_kept
from edgewise.errors import ConfigError, PlanError


def test_an_output_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="cannot be made a directory"):
        make_directory(tmp_path / "out")


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[1, 2]")
    assert read_kept(tmp_path / "found.json", tuple[int, ...]) == (1, 2)
    with pytest.raises(PlanError, match=r"found\.json is damaged.*Remove it"):
        read_kept(tmp_path / "found.json", str)
