"""The page of benchmarks shows what the committed results say."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The script as a module; benchmarks are no package."""
    source = ROOT / "benchmarks" / "benchmarks_page.py"
    spec = importlib.util.spec_from_file_location("benchmarks_page", source)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(made: ModuleType) -> None:
    committed = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    again = "python benchmarks/benchmarks_page.py benchmarks/results docs/benchmarks.md"
    assert committed == made.page(RESULTS), f"make it again: {again}"


def test_a_file_that_is_not_there_has_no_section(made: ModuleType, tmp_path: Path) -> None:
    shutil.copy(RESULTS / "speed.json", tmp_path)
    assert [line for line in made.page(tmp_path).splitlines() if line[:3] == "## "] == ["## Speed"]


def test_a_figure_that_is_not_there_is_a_dash(made: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps({"rows": [{"network": "resnet50"}]}))
    assert "| resnet50 | – | – | – | – |" in made.page(tmp_path)


def test_every_script_exists(made: ModuleType) -> None:
    for part in made.SECTIONS:
        assert (ROOT / "benchmarks" / part.command.split()[0]).is_file()
