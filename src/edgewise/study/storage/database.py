"""A database that keeps what it was told: transactions, tried again while it is away."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, SQLAlchemyError

from ...errors import StorageError
from ...values.redact import redact
from .schema import is_current, is_empty, prepare

PATIENCE = 60.0  # seconds that a database may be away
LONGEST_WAIT = 5.0  # seconds between two attempts

log = logging.getLogger("edgewise")
T = TypeVar("T")
Work = Callable[[sa.Connection], T]
_MEMORY = ("sqlite://", "sqlite:///:memory:")


class Database:
    """A study database: SQLite or PostgreSQL, by SQLAlchemy URL.

    Once it has answered, if only that it is starting up, a transaction that fails because the
    database is away (a server that restarts, a lost connection, a lock) is tried again for a
    minute. What is passed to `read` and
    `write` may therefore run twice, even after a commit of which no answer came: it has to ask
    what is there before it adds to it.

    Threads may share it: those of a process take turns in a database in memory, and have a
    connection each to any other.

    Args:
        url: an SQLAlchemy URL; None = memory only.
        create: make tables, file and folder where there are none; otherwise they must exist.

    Raises:
        StorageError: the database is newer than this program, damaged, no study database, or
            cannot be reached or written to.
    """

    def __init__(self, url: str | None, *, create: bool = True) -> None:
        self._patience = 0.0
        self.memory = url is None or url in _MEMORY
        self._turn: AbstractContextManager[Any] = nullcontext()
        if self.memory:
            self._turn = threading.RLock()
        self.engine = _connect(url or _MEMORY[0], self.memory, create)
        self.url = redact(self.engine.url.render_as_string(hide_password=True))
        self._writer = self.engine.execution_options(edgewise_write=True)
        self._open(create)
        self._patience = PATIENCE

    def _open(self, create: bool) -> None:
        try:
            if not create and self.read(is_empty):
                raise StorageError("There is no study in it.")
            if not self.read(is_current):
                self.write(prepare)
        except StorageError as error:
            known = str(error)
            raise error if self.url in known else StorageError(f"{self.url}: {known}") from error

    def read(self, work: Work[T]) -> T:
        """What `work` finds, in one transaction.

        Raises:
            StorageError: the database is damaged, or does not come back.
        """
        return self._try(self.engine, work, self._patience)

    def write(self, work: Work[T], patience: float | None = None) -> T:
        """What `work` gives after it has changed something, in one transaction: all or nothing.

        Args:
            work: called with the connection.
            patience: seconds for which the database may be away, a minute unless given.

        Raises:
            StorageError: the database cannot be written to; what it holds is untouched.
        """
        return self._try(self._writer, work, self._patience if patience is None else patience)

    def _try(self, engine: sa.Engine, work: Work[T], patience: float) -> T:
        begin, wait = time.monotonic(), 0.1
        while True:
            try:
                with self._turn, engine.begin() as connection:
                    found = work(connection)
            except SQLAlchemyError as error:
                patience = max(patience, PATIENCE if _starts_up(error) else 0.0)
                left = begin + patience - time.monotonic()
                if not _passes(error) or left <= 0:
                    raise _unusable(self.url, error) from error
                log.warning(
                    "The study database %s is away (%s); waiting for it, %.0f s at most.",
                    self.url, _cause(error).splitlines()[0], left,
                )  # fmt: skip
                time.sleep(min(wait, left))
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                if wait > 0.1:
                    log.warning("The study database %s is back.", self.url)
                return found


def _connect(url: str, memory: bool, create: bool) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if "@" in (parsed.host or ""):  # the end of a password, which messages would show
            raise ValueError("@ in the host")
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = _Memory().engine() if memory else sa.create_engine(parsed)
    except ImportError as error:
        extra = "postgres" if url.startswith("postgresql") else ""
        advice = f" pip install 'edgewise[{extra}]'" if extra else ""
        raise StorageError(
            f"The storage URL needs the package {error.name}, which is not installed.{advice}"
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        cause = "" if "@" in url else f": {error}"  # which quotes parts of a password
        raise StorageError(
            f"The storage URL {redact(url)} is no database that can be opened{cause}. Use for "
            'example "sqlite:///runs.db" or "postgresql+psycopg://user@host/database"; a password '
            "with @, / or : has them as %40, %2F and %3A."
        ) from None
    if engine.dialect.name == "sqlite":
        _find_file(engine.url, create)
        sa.event.listen(engine, "connect", _configure_sqlite)
        if create:  # also readers and a writer side by side; the file keeps it
            sa.event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA journal_mode=WAL"))
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


class _Memory:
    """A SQLite database that lives as long as this, whatever becomes of other connections to it.

    An interrupt within a transaction closes the connection.
    """

    def __init__(self) -> None:
        self.address = f"file:{uuid4().hex}?mode=memory&cache=shared"
        self.keeper = self.connect()

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.address, uri=True, check_same_thread=False)

    def engine(self) -> sa.Engine:
        """One connection for all threads, who take turns."""
        return sa.create_engine("sqlite://", creator=self.connect, poolclass=sa.pool.StaticPool)


def _find_file(url: sa.URL, create: bool) -> None:
    """Make the folder of a new SQLite file, or require that the file exists."""
    path = url.database or ""
    if path in ("", ":memory:") or path.startswith("file:"):
        return
    if not create:
        if not os.path.isfile(path):
            raise StorageError(f"There is no study database {path}.")
        return
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder of the study database cannot be made: {error}") from error


def _configure_sqlite(connection: Any, record: Any) -> None:
    """A finished evaluation survives a crash; a writer waits for another."""
    connection.isolation_level = None  # the driver begins no transaction: _begin_sqlite does
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes its lock at once, since one that has read before might never get it."""
    write = connection.get_execution_options().get("edgewise_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _passes(error: SQLAlchemyError) -> bool:
    """Whether trying again may help: the connection is lost, or something is locked."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    if "sqlite" in type(error.orig).__module__:
        return "locked" in str(error.orig)
    state = getattr(error.orig, "sqlstate", None)  # None: no server answered
    return state is None or state[:2] in ("08", "40") or state[:3] == "57P" or state == "53300"


def _starts_up(error: SQLAlchemyError) -> bool:
    """Whether a server answered that it will soon be there (psycopg gives no code for it)."""
    return "starting up" in _cause(error)


def _cause(error: SQLAlchemyError) -> str:
    return redact(str(getattr(error, "orig", None) or error).strip())


def _unusable(url: str, error: SQLAlchemyError) -> StorageError:
    cause = _cause(error)
    if "not a database" in cause or "malformed" in cause:
        advice = "The file is damaged or is no database. Move it away, or restore a copy."
    elif "readonly" in cause or "unable to open" in cause:
        advice = "Check that the file and its folder can be written to."
    elif "full" in cause or "No space left" in cause:
        advice = "The disk is full. Finished evaluations are kept; free some space and resume."
    elif isinstance(error, OperationalError) and url.startswith("postgresql"):
        advice = "Check that the server runs and lets you in. Finished evaluations are kept."
    elif isinstance(error, OperationalError | DatabaseError):
        advice = "Finished evaluations are kept; run the same command again to resume."
    else:
        advice = "Use another storage."
    return StorageError(f"The study database {url} cannot be used: {cause}. {advice}")
