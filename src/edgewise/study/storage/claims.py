"""Who measures what: several processes work on one study without doing anything twice.

A process claims masks in the database before it measures them, and counts its claims' beat up as
long as it lives. Another process takes a claim over when its holder is known to be dead (same
machine) or its beat has stood still for a while. How long is told by the observer's own
monotonic clock: no two clocks are ever compared, and none may be set wrong.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from ...errors import StorageError
from .database import Database
from .schema import CLAIMS

BEAT = 5.0  # seconds between two beats
LEASE = 30.0  # seconds without a beat after which a claim is up for grabs


class Claims:
    """The claims of one process on masks of a study.

    Args:
        database: where the claims are.
        study: id of the study.
    """

    def __init__(self, database: Database, study: int) -> None:
        self.database, self.study = database, study
        self.worker = f"{platform.node()[:100]}:{os.getpid()}:{uuid.uuid4().hex}"
        self._count = 0
        self._seen: dict[tuple[str, int], float] = {}  # (worker, beat): when it was first seen

    def take(
        self, connection: sa.Connection, masks: Sequence[str], split: str, limit: int
    ) -> tuple[list[str], list[str]]:
        """Claim masks that no living process has claimed.

        Args:
            connection: of a transaction that no other writer of the study can enter.
            masks: bits of the masks, in the order of preference.
            split: the data on which they are to be measured.
            limit: how many at most.

        Returns:
            The masks that are this process's now, and the workers that hold the others.
        """
        here = (CLAIMS.c.study == self.study) & (CLAIMS.c.split == split)
        rows = connection.execute(sa.select(CLAIMS).where(here)).all()
        holders = {r.mask: r.worker for r in rows if self._lives(r.worker, r.beat)}
        mine = [m for m in masks if holders.get(m, self.worker) == self.worker][:limit]
        stale = [r.mask for r in rows if r.mask not in holders]
        self.drop(connection, split, {*stale, *mine})
        if mine:
            self._count += 1
            claim = {"study": self.study, "split": split, "worker": self.worker}
            claim |= {"beat": self._count}
            connection.execute(sa.insert(CLAIMS), [claim | {"mask": mask} for mask in mine])
        return mine, sorted({holders[m] for m in masks if m in holders} - {self.worker})

    def drop(self, connection: sa.Connection, split: str, masks: Collection[str]) -> None:
        """End claims, in the transaction that stores the results."""
        where = (CLAIMS.c.study == self.study) & (CLAIMS.c.split == split)
        connection.execute(sa.delete(CLAIMS).where(where, CLAIMS.c.mask.in_(masks)))

    def _lives(self, worker: str, beat: int) -> bool:
        if worker == self.worker:
            return True
        if _dead_here(worker):
            return False
        now = time.monotonic()
        return now - self._seen.setdefault((worker, beat), now) < LEASE

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep this process's claims alive meanwhile, and give up what is left of them after."""
        if self.database.memory:
            yield
            return
        done = threading.Event()
        heart = threading.Thread(target=self._beat, args=(done,), name="edgewise-heart")
        heart.daemon = True
        heart.start()
        try:
            yield
        finally:
            done.set()
            heart.join()
            self._release()

    def _beat(self, done: threading.Event) -> None:
        mine = CLAIMS.c.worker == self.worker
        while not done.wait(BEAT):
            self._count += 1
            count = sa.update(CLAIMS).where(mine).values(beat=self._count)
            with suppress(StorageError):  # whoever stores a result waits for the database, aloud
                self._once(count)

    def _release(self) -> None:
        with suppress(StorageError):  # they expire
            self._once(sa.delete(CLAIMS).where(CLAIMS.c.worker == self.worker))

    def _once(self, statement: sa.Executable) -> None:
        self.database.write(lambda connection: connection.execute(statement), patience=0.0)


def _dead_here(worker: str) -> bool:
    """Whether a worker of this machine is no more; of another machine nothing is known."""
    host, pid, _ = worker.rsplit(":", 2)
    if host != platform.node()[:100] or os.name != "posix":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives and is another user's
        pass
    return False
