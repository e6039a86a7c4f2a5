"""The report of a study while it runs, on this machine's own address only."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

HOST, PORT = "127.0.0.1", 8642
LAST = 5.0  # seconds that a reader has for the last refresh; it asks every two
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Pages:
    """What the server shows: a shell that asks for its contents again and again.

    Requests for another host's name are refused, so that no site of the web can read the page
    through a name that it points at this machine. Nothing can be changed through it.

    Args:
        shell: gives the whole page.
        contents: gives its changing part.
    """

    def __init__(self, shell: Callable[[], str], contents: Callable[[], str]) -> None:
        self.shell, self.contents = shell, contents
        self.asked = -LAST  # when contents were last asked for

    @property
    def app(self) -> Any:
        """The ASGI application."""
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route

        routes = [Route("/", self._shell), Route("/contents", self._contents)]
        own = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        return Starlette(routes=routes, middleware=[own])

    def _shell(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        return HTMLResponse(self.shell(), headers=HEADERS)

    def _contents(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse, Response

        text = self.contents()
        self.asked = time.monotonic()
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return HTMLResponse(text, headers={**HEADERS, "ETag": tag})


def require_server() -> None:
    """Say that starlette or uvicorn is not installed, before any work is done.

    Raises:
        ConfigError: one of them is not.
    """
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise ConfigError(
            "--live needs a server: pip install 'edgewise[live]' (in a clone: '.[live]')."
        )


@contextmanager
def serving(pages: Pages, port: int = PORT) -> Iterator[str]:
    """Serve pages from a thread of their own, and give the address; the end waits for a last look.

    Whatever goes wrong with a page stays in that thread.

    Args:
        pages: what to serve.
        port: of 127.0.0.1; 0 takes a free one.

    Raises:
        ConfigError: the port is taken, or starlette and uvicorn are not installed.
    """
    require_server()
    import uvicorn

    place = _bound(port)
    server = uvicorn.Server(uvicorn.Config(pages.app, log_level="critical", lifespan="off"))
    thread = Thread(target=server.run, args=([place],), name="edgewise live", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{place.getsockname()[1]}/"
        _last_look(pages)
    finally:
        server.should_exit = True
        thread.join(LAST)
        place.close()


def _bound(port: int) -> socket.socket:
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((HOST, port))
        place.listen()
    except OSError as error:
        place.close()
        raise ConfigError(
            f"Port {port} of {HOST} cannot be used: {error.strerror}. Name another one, such as "
            f"--live {port + 1}."
        ) from error
    return place


def _last_look(pages: Pages) -> None:
    """Wait until whoever reads the page has seen its last state."""
    end = time.monotonic()
    if end - pages.asked > LAST:
        return
    while pages.asked < end and time.monotonic() < end + LAST:
        time.sleep(0.1)
