"""No password, token or key in what others may see, and no command in what a terminal gets."""

import io
import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

import edgewise as ew
import jobs
from edgewise.cli.app import app
from edgewise.cli.job.config import read_config
from edgewise.cli.job.job import page_facts
from edgewise.cli.screen import Screen
from edgewise.errors import ConfigError, ObjectiveError, StorageError
from edgewise.evaluation.records import Evaluation, Progress
from edgewise.report import Facts, Insight, Outcome, contents, render
from edgewise.study.storage import database
from edgewise.study.storage.storage import Storage
from edgewise.values.redact import legible, redact
from identities import belonging

SECRET = "sw0rdfish"
URLS = [
    f"postgresql://user:{SECRET}@localhost:1/db",
    f"postgresql+psycopg://user:{SECRET}@localhost:1/db",
    f"postgresql://user:a@{SECRET}@localhost:1/db",
    f"postgresql://user:a/{SECRET}@localhost:1/db",
    f"postgresql://user:a:{SECRET}@localhost:1/db",
    f"postgresql://:{SECRET}@localhost:1/db",
    f"postgresql://user@localhost:1/db?password={SECRET}",
    f"postgresql://user@localhost:1/db?sslmode=disable&sslpassword={SECRET}",
    f"postgresql://user:{SECRET}@localhost:port/db",
    f"nonsense://user:{SECRET}@localhost/db",
]
TEXTS = [
    *URLS,
    *(f'storage = "{url}"' for url in URLS),
    *(json.dumps({"storage": url, "n": 1}) for url in URLS),
    f"storage = 'postgresql://user:two words {SECRET}@host/db'",
    f"host=localhost password={SECRET} dbname=db",
    f"host=localhost password='{SECRET} too'",
    f'api_key = "{SECRET}"',
    f"hf_token='{SECRET}'",
    f'token = """\n{SECRET}\n"""',
    f'secrets = ["a", "{SECRET}"]',
    f'{{"access_key": "{SECRET}", "n": 1}}',
    f"DB_PASSWORD={SECRET}",
    f"dbPassword = '{SECRET}'",
    "password = 1234",
    f"Authorization: Bearer {SECRET}.{SECRET}",
    f"https://example.org/data?token={SECRET}&rows=5",
]


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_are_hidden(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown
    assert "1234" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        'storage = "sqlite:///runs.db"',
        "http://127.0.0.1:8642/ is the page; write to me@example.org",
        "class_token = true\nnum_tokens = 197",
        "blocks.0.conv: 64 of 3x3, unexpected token: ]",
        "postgresql+psycopg://user@host:5432/database",
        'source = "model.py:make"',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=4))
def test_any_password_of_a_quoted_url_is_hidden(password: str) -> None:
    marked = f"<<{password.replace(chr(34), '')}>>"
    assert "<<" not in redact(f'storage = "postgresql://user:{marked}@host/db"')


@given(st.text())
def test_hiding_ends_and_can_be_done_twice(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize("url", URLS)
def test_no_message_log_or_traceback_of_a_storage_has_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.0)
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageError) as caught:
        Storage(url, "job", belonging())
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value) + caplog.text
    assert SECRET not in told


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("url", URLS)
def test_the_command_line_does_not_show_it(
    url: str, debug: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.0)
    result = CliRunner().invoke(app, ["study", "list", url, *debug])
    assert result.exit_code == 1
    assert "Error:" in result.output
    assert SECRET not in result.output


JOB = """
[model]
source = "model.py:make"
arguments = {{ hf_token = "{secret}", width = 8 }}
[data]
source = "data.py:make"
[study]
storage = "postgresql://user:{secret}@host/db"
"""


def test_report_and_live_page_show_the_job_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(JOB.format(secret=SECRET))
    config = read_config(path)
    assert SECRET in config.storage
    graph, _ = jobs.make()
    facts = Facts(graph, [], None, Outcome(), None, Insight())
    live = contents(facts, "job", page_facts(config))
    page = render(graph, [], None, title="job", extra=page_facts(config))
    for text in (live, page):
        assert SECRET not in text
        assert "user:***@host/db" in text
        assert "width = 8" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('storage = "postgresql://', 'storage = "postgresql:/'),
        ('storage = "postgresql://', 'storage = "'),
        ('storage = "postgresql://', 'storage = ["'),
        ('storage = "', 'strage = "'),
        ("[study]", '[study "postgresql://'),
    ],
)
def test_mistakes_in_a_job_are_told_without_its_secrets(tmp_path: Path, old: str, new: str) -> None:
    text = JOB.format(secret=SECRET).replace(old, new)
    path = tmp_path / "job.toml"
    path.write_text(text.replace('host/db"', 'host/db"]') if '["' in new else text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_errors_of_user_code_are_kept_without_secrets(tmp_path: Path) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        raise RuntimeError(f"cannot reach postgresql://me:{SECRET}@host/db, token={SECRET}")

    study = ew.Study(*jobs.make(loss), f"sqlite:///{tmp_path / 'study.db'}")
    with pytest.raises(ObjectiveError, match="cannot reach") as caught:
        study.run(6, jobs.BUDGET)
    (failed,) = study.evaluations
    assert "cannot reach" in str(failed.error)
    assert SECRET not in f"{failed.error} {caught.value}"


NASTY = ["\x1b[31mred", "a\x1b]0;title\x07b", "x\x9b31m", "a\rb", "\x08\x7f", "a‮b", "\ud800"]


@pytest.mark.parametrize("text", NASTY)
def test_control_characters_are_written_out(text: str) -> None:
    screen, out = Screen(), io.StringIO()
    screen.out = screen.err = Console(file=out, width=200, highlight=False)
    for say in (screen.say, screen.warn, screen.fail, screen.show):
        say(text)
    screen.path(Path(text))
    screen.table(text, [text, "n"], [[text, "1"]])
    screen._list(text, [text, "n"], [[text, text]])
    shown = out.getvalue()
    shown.encode()
    assert not any(letter in shown for letter in "\x1b\x9b\x07\x08\x7f\r‮")
    assert legible(text) in shown
    assert legible(legible(text)) == legible(text)


def test_newlines_of_messages_stay_and_those_of_names_do_not_break_tables() -> None:
    screen, out = Screen(), io.StringIO()
    screen.out = screen.err = Console(file=out, width=200, highlight=False)
    screen.fail("one\ntwo")
    screen.table("t", ["name", "n"], [["one\ntwo", "1"]])
    assert "one\ntwo\n" in out.getvalue()
    assert "one\\ntwo" in out.getvalue()


def test_names_are_no_markup() -> None:
    screen, out = Screen(), io.StringIO()
    screen.out = screen.err = Console(file=out, width=200, highlight=False, force_terminal=True)
    screen.live = True
    screen.table("[bold]t", ["[red]name", "n"], [["[blink]x[/blink]", "1"]])
    with screen.progress() as told:
        told(Progress("[red]phase[/nothing]", 1, 2, None, 0, 1.0))
    for name in ("[bold]t", "[red]name", "[blink]x[/blink]", "[red]phase[/nothing]"):
        assert name in out.getvalue()


def test_a_study_of_a_stranger_is_listed_without_escapes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = Storage(url, "\x1b[31m[red]x", belonging())
    storage.add(Evaluation("0", "search", None, status="failed", error="\x1b[2J[bold]gone"))
    for command in ("list", "show"):
        result = CliRunner().invoke(app, ["study", command, url])
        assert result.exit_code == 0
        assert "\x1b" not in result.output
        assert "[red]x" in result.output
