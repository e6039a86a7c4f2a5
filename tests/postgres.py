"""A PostgreSQL server for tests, started from the programs of Debian's package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path


def missing() -> str | None:
    """What is not installed and how to get it, None if all is there."""
    if _programs() is None:
        return "No PostgreSQL server is installed: apt-get install postgresql"
    if find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'edgewise[postgres]'"
    return None


def _programs() -> Path | None:
    """The folder of initdb and postgres: Debian's newest, or that on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """A server on a free port of 127.0.0.1, with its data in a temporary folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgewise-postgres-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        self.options: dict[str, object] = {}
        if os.getuid() == 0:  # which PostgreSQL refuses to run as
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self.options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        programs = _programs()
        assert programs is not None
        self.programs, self.data = programs, self.folder / "data"
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8")

    def _run(self, program: str, *words: object) -> None:
        command = [str(self.programs / program), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self.options)

    def start(self) -> None:
        """Start the server and wait until it lets us in."""
        import psycopg

        settings = ["-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1"]
        log = (self.folder / "log").open("ab")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(
                    [str(self.programs / "postgres"), "-D", str(self.data), *settings],
                    stdout=log, stderr=log, cwd="/", **self.options,
                )  # fmt: skip
            try:
                url = self.url.replace("+psycopg", "")
                psycopg.connect(url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """End the server as a crash does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        """Stop the server and delete its data."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)
