"""The live view: read-only, for this machine, and harmless to the run."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from edgewise.errors import ConfigError
from edgewise.live import HOST, Pages, serving

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


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
        assert ask(address, method, "/contents")[0] == 405
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
