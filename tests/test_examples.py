"""The example scripts run, in a reduced form, and their page shows what they print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("classifier", "unet", "language_model")
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    """An example as a module; scripts are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(printed: str) -> list[str]:
    """What stays the same when a script does less: the first word of each line of figures."""
    return [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]


def shown(name: str) -> str:
    """The output of an example on its page, below the command that made it."""
    found = re.search(rf"```text\n\$ python examples/{name}\.py\n(.*?)```", PAGE, re.S)
    assert found, f"docs/examples.md does not show what {name}.py prints"
    return found[1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_examples_print_what_their_page_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where an example writes its files
    script(name).main(evaluations=4, epochs=1)
    printed = capsys.readouterr().out
    assert shapes(printed) == shapes(shown(name))
    before, after = re.search(r"^MACs.* ([\d,]+) -> ([\d,]+)$", printed, re.M).groups()  # type: ignore[union-attr]
    assert 0 < int(after.replace(",", "")) < int(before.replace(",", ""))


def test_every_script_is_on_the_page() -> None:
    runnable = {p.stem for p in (ROOT / "examples").glob("*.py") if "def main" in p.read_text()}
    assert runnable == set(SCRIPTS)
    for name in SCRIPTS:
        assert f"(../examples/{name}.py)" in PAGE
