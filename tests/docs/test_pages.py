"""Every code block of the documentation does what it says: Python runs, commands and jobs parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import pages
from edgewise import ops
from edgewise.cli.app import app
from edgewise.cli.job.config import read_config
from edgewise.evaluation.evaluator import Serial
from edgewise.evaluation.ray.executor import Ray
from edgewise.study.study import Study

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md"] + [
    str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))
]
ELSEWHERE = ("ray", "apt-get", "./check", "python -m venv", ". .venv/bin/activate")
FEWER = re.compile(r"((?:evaluations=|certify=|epoch in range\())\d+")
RUN_ELSEWHERE = ("docs/howto/trackers.md",)  # test_trackers.py looks at what it tells
REQUIRED = '[model]\nsource = "torchvision:resnet18"\n[data]\nsource = "data.py:examples"\n'


def blocks(page: str, language: str) -> Iterator[tuple[int, str]]:
    """The code blocks of a language, each with its line."""
    parser = CodeBlockParser(language=language, evaluator=lambda example: None)
    for example in Sybil([parser]).parse(ROOT / page).examples():
        yield example.line, example.parsed


def having(language: str) -> list[str]:
    return [page for page in PAGES if any(blocks(page, language))]


@pytest.fixture
def own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that a page registers are forgotten after it."""
    monkeypatch.setattr(ops.TABLE, "rules", dict(ops.TABLE.rules))
    monkeypatch.setattr(ops.TABLE, "targets", dict(ops.TABLE.targets))


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray's workers would measure, one process does."""
    monkeypatch.setattr(Ray, "__call__", lambda self, *job: Serial(*job))


@pytest.mark.parametrize("page", sorted({*having("python")} - {*RUN_ELSEWHERE}))
@pytest.mark.usefixtures("own_rules", "no_cluster", "no_clock")
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page go on where the one before ended; searches are short."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (tmp_path / Path(page).name).write_text(FEWER.sub(r"\g<1>8", text), encoding="utf-8")
    monkeypatch.setitem(Study.plan.__kwdefaults__, "finalists", 3)
    document = Sybil([PythonCodeBlockParser()]).parse(tmp_path / Path(page).name)
    document.namespace.update(pages.SETUPS.get(page, pages.plain)())
    monkeypatch.chdir(tmp_path)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("page", having("sh"))
def test_commands_exist(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the arguments and options that its program takes."""
    monkeypatch.chdir(ROOT)
    for line, block in blocks(page, "sh"):
        for command in re.split(r"\n|&&", block.replace("\\\n", " ")):
            words = shlex.split(command, comments=True)
            if words and not " ".join(words).startswith(ELSEWHERE):
                try:
                    CHECKS[words[0]](words[1:])
                except Exception as error:
                    error.add_note(f"{page}:{line}: {command.strip()}")
                    raise


def parse_edgewise(words: list[str]) -> None:
    """Every option and argument is taken; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "resolve_command"):
        context = command.make_context(command.name, words, parent=context)
        words = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, words, parent=context)


def find_script(words: list[str]) -> None:
    """A script of this repository that reads the options it is given."""
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    source = "".join(path.read_text() for path in {script, *script.parent.glob("measure.py")})
    missing = [w for w in words[1:] if w.startswith("--") and f'"{w}"' not in source]
    assert not missing, f"{words[0]} knows no {missing}"


def find_extras(words: list[str]) -> None:
    """Extras that are installed are extras that there are."""
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
    for word in words:
        for extra in re.findall(r"\[([\w,]+)\]", word):
            assert set(extra.split(",")) <= set(known), f"there is no extra {extra}"


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "edgewise": parse_edgewise,
    "python": find_script,
    "pip": find_extras,
}


@pytest.mark.parametrize("page", having("toml"))
def test_jobs_are_read(page: str, tmp_path: Path) -> None:
    """A part of a job file, beside the sections that every job has, is one."""
    for _, block in blocks(page, "toml"):
        rest = "" if "[model]" in block else REQUIRED
        (tmp_path / "job.toml").write_text(rest + block)
        read_config(tmp_path / "job.toml")


def test_wrong_blocks_are_found() -> None:
    """The checks above can fail."""
    with pytest.raises(Exception, match="--evaluation"):
        parse_edgewise(["run", "job.toml", "--evaluation", "3"])
    with pytest.raises(Exception, match="rum"):
        parse_edgewise(["rum", "job.toml"])
    with pytest.raises(AssertionError):
        find_extras(["edgewise[rays]"])
    with pytest.raises(AssertionError):
        find_script(["benchmarks/latency.py", "--nothing"])


def test_no_page_is_set_up_for_nothing() -> None:
    assert set(pages.SETUPS) <= set(having("python"))
