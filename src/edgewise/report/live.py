"""The report of a study while it runs, on this machine's own address only."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from ..errors import ConfigError

HOST, PORT = "127.0.0.1", 8642
LAST = 5.0  # seconds that a reader has for the last refresh; it asks every two
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Type": "text/html; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
}


class Pages:
    """What the server shows: a shell that asks for its contents again and again.

    Args:
        shell: gives the whole page.
        contents: gives its changing part.
    """

    def __init__(self, shell: Callable[[], str], contents: Callable[[], str]) -> None:
        self.shell, self.contents = shell, contents
        self.asked = -LAST  # when contents were last asked for


class _Answer(BaseHTTPRequestHandler):
    """Gives pages, and can change nothing.

    Requests for another host's name are refused, so that no site of the web can read the page
    through a name that it points at this machine.
    """

    def __init__(self, pages: Pages, *args: Any) -> None:
        self.pages = pages
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer GET and HEAD."""
        make = {"/": self.pages.shell, "/contents": self.pages.contents}.get(self.path)
        if self.headers.get("host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(400)
        elif make is None:
            self.send_error(404)
        else:
            try:
                body = make().encode()
            except Exception:  # noqa: BLE001 - the run goes on without the page
                self.send_error(500)
            else:
                self._send(body)

    do_HEAD = do_GET

    def _send(self, body: bytes) -> None:
        if self.path == "/contents":
            self.pages.asked = time.monotonic()
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        known = self.headers.get("if-none-match") == tag
        self.send_response(304 if known else 200)
        for name, value in {**HEADERS, "ETag": tag, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not known and self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the screen is the run's."""


@contextmanager
def serving(pages: Pages, port: int = PORT) -> Iterator[str]:
    """Serve pages from a thread of their own, and give the address; the end waits for a last look.

    Whatever goes wrong with a page stays in that thread.

    Args:
        pages: what to serve.
        port: of 127.0.0.1; 0 takes a free one.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Answer, pages))
    except OSError as error:
        raise ConfigError(
            f"Port {port} of {HOST} cannot be used: {error.strerror}. Name another one, such as "
            f"--live {port + 1}."
        ) from error
    Thread(target=server.serve_forever, name="edgewise live", daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
        _last_look(pages)
    finally:
        server.shutdown()
        server.server_close()


def _last_look(pages: Pages) -> None:
    """Wait until whoever reads the page has seen its last state."""
    end = time.monotonic()
    if end - pages.asked > LAST:
        return
    while pages.asked < end and time.monotonic() < end + LAST:
        time.sleep(0.1)
