"""The JSON schema of job files: made from code and page, and in agreement with what is read."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import jsonschema
import pytest

from edgewise.cli.job import sections
from edgewise.cli.job.config import Sections
from edgewise.cli.job.toml_sections import read_tables
from edgewise.errors import ConfigError
from edgewise.surrogates import searcher

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
JOB = {"model": {"source": "net.py:make"}, "data": {"source": "data.parquet"}}


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The script as a module; the documentation is no package."""
    spec = importlib.util.spec_from_file_location("config_schema", ROOT / "docs/config_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schema(made: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.schema(PAGE))
    jsonschema.Draft7Validator.check_schema(found)
    return found


def test_the_command_prints_what_code_and_page_say(made: ModuleType) -> None:
    words = [sys.executable, "-m", "edgewise", "schema"]
    printed = subprocess.run(words, capture_output=True, encoding="utf-8", check=True).stdout
    assert printed == made.schema(PAGE), "make it again: python docs/config_schema.py"


def test_every_key_is_explained_without_links(schema: dict[str, Any]) -> None:
    for section in schema["properties"].values():
        for key in section["properties"].values():
            assert key["description"]
            assert "](" not in key["description"]


@pytest.mark.parametrize("row", ["| `seed` | of everything random | 0 |\n", "## `[units]`"])
def test_a_key_or_section_that_the_page_lacks_is_noticed(made: ModuleType, row: str) -> None:
    assert row in PAGE
    with pytest.raises(ValueError, match=r"config\.md has other keys"):
        made.schema(PAGE.replace(row, "" if row.startswith("|") else "## `[unit]`"))


def test_the_page_tells_the_defaults_of_the_code(made: ModuleType, schema: dict[str, Any]) -> None:
    for name, keys in made.tables(PAGE).items():
        section = schema["properties"][name]
        for key, (_, told) in keys.items():
            value = section["properties"][key].get("default")
            told = told.replace("`", "").strip('"')
            assert (told == "required") == (key in section.get("required", ())), (name, key)
            if isinstance(value, float):
                assert float(told) == value, (name, key)
            elif value not in (None, []):  # which the page tells in words
                assert told == (value if isinstance(value, str) else json.dumps(value)), (name, key)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_examples_fit_the_schema(schema: dict[str, Any], path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"search": {"seed": "1"}}, "[search] seed must be a whole number"),
        ({"search": {"sed": 1}}, "[search] has no key 'sed'. Did you mean 'seed'? Known: eval"),
        ({"serch": {}}, "unknown section [serch]. Did you mean 'search'? Known: model, data"),
        ({"heal": {"rows": "5:", "lr": 0}}, "[heal] lr must be above 0, got 0"),
        ({"heal": {"rows": "5:", "precision": "bf61"}}, "precision must be one of no, bf16, fp16"),
        ({"heal": {"rows": "5:", "precision": "bf61"}}, "got \"bf61\". Did you mean 'bf16'?"),
        ({"units": {"only": ["a", 1]}}, "[units] only[1] must be text, got 1"),
        ({"budget": {"macs": [1]}}, "[budget] macs must be a number or text, got [1]"),
        ({"ray": {"gpus": -1}}, "[ray] gpus must be at least 0"),
        ({"calibration": {"rows": "5-6"}}, "[calibration] rows must be a range"),
        ({"engine": {"memory": 5}}, "[engine] memory must be text"),
        ({"model": {}}, "[model] needs the key source"),
        ({"search": {"": 1}}, "[search] has no key ''"),
        ({"search": []}, "[search] must be a section, got []"),
    ],
)
def test_what_editors_mark_is_refused_with_its_place(
    schema: dict[str, Any], tmp_path: Path, table: dict[str, Any], where: str
) -> None:
    assert not list(jsonschema.Draft7Validator(schema).iter_errors(JOB))
    assert list(jsonschema.Draft7Validator(schema).iter_errors(JOB | table))
    with pytest.raises(ConfigError, match=f"^job.toml: .*{re.escape(where)}"):
        read_tables(Sections, JOB | table, tmp_path, "job.toml")


def test_every_mistake_has_a_line(tmp_path: Path) -> None:
    tables = JOB | {"search": {"sed": 1, "finalists": 0}, "ray": {"gpus": float("nan")}}
    with pytest.raises(ConfigError) as error:
        read_tables(Sections, tables, tmp_path, "job.toml")
    assert sorted(line.split("] ")[0] for line in str(error.value).splitlines()) == [
        "job.toml: [ray", "job.toml: [search", "job.toml: [search",
    ]  # fmt: skip


def test_the_surrogates_are_those_that_can_search() -> None:
    assert get_args(sections.Surrogate) == searcher.NAMES
