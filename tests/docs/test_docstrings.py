"""Every example in a docstring runs, and every name of the reference has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import edgewise as ew
import pages
from edgewise import ops
from edgewise.evaluation.evaluator import Serial
from edgewise.evaluation.ray.executor import Ray

REFERENCE = Path(__file__).parents[2] / "docs" / "api.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> dict[str, doctest.DocTest]:
    """The examples of every object of the package, by its full name."""
    found: dict[str, doctest.DocTest] = {}
    for module in pkgutil.walk_packages(ew.__path__, "edgewise."):
        if not module.name.endswith("__main__"):
            tests = doctest.DocTestFinder().find(importlib.import_module(module.name))
            found |= {test.name: test for test in tests if test.examples}
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What docs/api.md says that every example starts from."""
    return pages.reference()


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("no_clock")
def test_example_runs(
    name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Ray, "__call__", lambda self, *job: Serial(*job))
    for table in ("rules", "targets"):
        monkeypatch.setattr(ops.TABLE, table, dict(getattr(ops.TABLE, table)))
    test = EXAMPLES[name]
    test.globs = {**test.globs, **names}
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert not result.failed, "".join(said)


def test_every_public_name_has_an_example() -> None:
    """Those of the package, and all else in the reference."""
    text = REFERENCE.read_text()
    listed = set(re.findall(r"^::: ([\w.]+)$", text, re.M))
    for module, members in re.findall(r"^::: (\S+)\n +options: \{ members: \[(.*)\]", text, re.M):
        listed -= {module}
        listed |= {f"{module}.{member}" for member in members.split(", ")}
    public = {full_name(getattr(ew, name)) for name in ew._HOMES if name != "__version__"}
    shown = {name for name, test in EXAMPLES.items() if "Examples:\n" in (test.docstring or "")}
    assert not sorted((listed | public) - shown)


def full_name(value: Any) -> str:
    """Of a module, or of what is defined in one."""
    if isinstance(value, ModuleType):
        return value.__name__
    return f"{value.__module__}.{value.__qualname__}"


def test_no_example_is_skipped() -> None:
    skipped = [
        name
        for name, test in EXAMPLES.items()
        if any(doctest.SKIP in example.options for example in test.examples)
    ]
    assert not skipped
