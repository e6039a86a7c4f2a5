"""The live view: read-only, for this machine, and harmless to the run."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cli.test_cli import job as job
from edgewise.errors import ConfigError
from edgewise.report.live import HOST, Pages, serving


@pytest.fixture
def address() -> Iterator[str]:
    with serving(Pages(lambda: "<p>shell", lambda: "<main>so far"), 0) as url:
        yield url.removeprefix("http://").rstrip("/")


def ask(address: str, method: str, path: str, **headers: str) -> tuple[int, str, str | None]:
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.getheader("etag")
    connection.close()
    return found


def test_contents_come_once_until_they_change(address: str) -> None:
    assert ask(address, "GET", "/")[:2] == (200, "<p>shell")
    status, text, tag = ask(address, "GET", "/contents")
    assert (status, text) == (200, "<main>so far")
    assert tag is not None
    assert ask(address, "GET", "/contents", **{"If-None-Match": tag})[:2] == (304, "")


def test_only_reading_and_only_by_its_own_names(address: str) -> None:
    assert ask(address, "HEAD", "/")[:2] == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(address, method, "/contents")[0] == 501
    assert ask(address, "GET", "/contents", Host="evil.example")[0] == 400
    assert ask(address, "GET", "/../../etc/passwd")[0] == 404


def test_a_failing_page_ends_nothing() -> None:
    def fail() -> str:
        raise ValueError("no page")

    with serving(Pages(lambda: "shell", fail), 0) as url:
        address = url.removeprefix("http://").rstrip("/")
        assert ask(address, "GET", "/contents")[0] == 500
        assert ask(address, "GET", "/")[0] == 200


def test_the_end_waits_for_a_last_look_only_if_someone_looks() -> None:
    pages = Pages(lambda: "shell", lambda: "contents")
    with serving(pages, 0) as url:
        pass
    with pytest.raises(OSError, match="refused"):
        ask(url.removeprefix("http://").rstrip("/"), "GET", "/")


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"--live {port + 1}"),
            serving(Pages(lambda: "", lambda: ""), port),
        ):
            pass


HELD = """
import time
from pathlib import Path
from torch.nn import functional as F

GO = Path(__file__).with_name("go")


def losses(outputs, targets):
    while not GO.exists():
        time.sleep(0.02)
    return F.cross_entropy(outputs, targets, reduction="none")
"""


@pytest.fixture
def held(job: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """`edgewise run --live` in its first evaluation, its address, and a file that lets it go on."""
    (job.parent / "held.py").write_text(HELD)
    job.write_text(job.read_text().replace("[objective]", '[objective]\nloss = "held.py:losses"'))
    words = [sys.executable, "-m", "edgewise", "run", str(job), "--live", "0"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # jobs of a shell ignore it
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=heard
    ) as run:
        assert run.stderr is not None
        line = next(line for line in run.stderr if "http://" in line)
        try:
            yield run, line.split("http://")[1].strip().rstrip("/"), job.with_name("go")
        finally:
            run.kill()


def test_a_command_shows_its_run_until_it_ends(held: tuple[Any, str, Path]) -> None:
    run, address, go = held
    assert address.startswith(f"{HOST}:")
    assert ask(address, "GET", "/")[0] == 200
    before = ask(address, "GET", "/contents")
    assert before[0] == 200
    assert ask(address, "GET", "/contents", Host="evil.example")[0] == 400
    assert run.poll() is None
    go.touch()
    seen = list(followed(address))
    assert run.wait(60) == 0
    assert any(re.search(r"<progress.*leave-one-out: \d+/10, .*best loss", page) for page in seen)
    assert "1 of 6 units removed" in seen[-1]
    assert "<progress" not in seen[-1]
    assert "units removed" not in before[1]


def test_an_interrupted_command_ends_its_page(held: tuple[Any, str, Path]) -> None:
    run, address, _ = held
    assert ask(address, "GET", "/contents")[0] == 200
    run.send_signal(signal.SIGINT)
    assert "Finished evaluations are kept" in run.stderr.read()
    assert run.wait(60) == 130
    with pytest.raises(OSError, match="refused"):
        ask(address, "GET", "/")


def followed(address: str) -> Iterator[str]:
    """What a page asks for every moment, until nobody answers."""
    while True:
        try:
            yield ask(address, "GET", "/contents")[1]
        except OSError:
            return
        time.sleep(0.05)
