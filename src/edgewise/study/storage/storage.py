"""Where the evaluations of a study are kept: any database that SQLAlchemy reaches."""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, get_args

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite

from ...errors import OtherStudyError, StorageError
from ...evaluation.records import SPLITS, Evaluation, Status, whole_of
from ...values.files import parse_json
from ...values.identity import Identity
from ...values.reading import read_fields
from ...values.redact import redact
from .claims import Claims
from .database import Database
from .schema import EVALUATIONS, LOSSES, RUNS, STUDIES

STATUSES = get_args(Status)
POLL = 0.2  # seconds between two looks at what another process has measured

log = logging.getLogger("edgewise")
RETRIED = ("failed", "out of memory")  # statuses whose cause may be mended by the next process
ORDER = (
    " Data count, in their order too: a DataLoader that shuffles, also of calibration data, makes "
    "another objective in every process."
)
UNITS = (
    " To go on with it, trace with its granularity, slices and choice of units; one that was begun "
    'when every connection was offered by default needs granularity=("edge", "layer").'
)
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True)
class Run:
    """One call of study.run: its settings and how many evaluations there were before it."""

    id: int
    settings: Mapping[str, Any]
    before: int


@dataclass(frozen=True)
class _Settings:
    budget: Mapping[str, float | str] = field(default_factory=dict)
    seed: int = 0
    surrogate: str = ""


@dataclass(frozen=True)
class _StoredRun:
    settings: _Settings
    before: int


class Storage:
    """The evaluations of one study.

    Args:
        url: an SQLAlchemy URL such as "sqlite:///runs.db"; None = memory only.
        name: of the study; several studies may share a database.
        identity: what the study belongs to; None takes a study that is there, whatever it
            belongs to.

    Raises:
        StorageError: the study belongs to something else or is not there, the database is newer
            than this program, damaged, or cannot be written to.
    """

    def __init__(self, url: str | None, name: str, identity: Identity | None) -> None:
        self.database = Database(url, create=identity is not None)
        self.url, self.name = self.database.url, name
        self.unproven = False  # whether the stored identity is one that cannot be compared
        self.study = self._find(name) if identity is None else self._open(name, identity)
        self.claims = Claims(self.database, self.study)

    def _find(self, name: str) -> int:
        known = study_names(self.database)
        if name not in known:
            listed = ", ".join(repr(other) for other in known) or "none"
            raise StorageError(f"{self.url} has no study {name!r}. Its studies: {listed}.")
        query = sa.select(STUDIES.c.id).where(STUDIES.c.name == name)
        return int(self.database.read(lambda connection: connection.execute(query).scalar_one()))

    def _open(self, name: str, identity: Identity) -> int:
        query = sa.select(STUDIES).where(STUDIES.c.name == name)
        row = self.database.read(lambda connection: connection.execute(query).first())
        if row is None:
            values = {"name": name, "identity": identity.text()}
            # Another process may have been faster since; then its row stays.
            new = _INSERTS[self.database.engine.dialect.name](STUDIES).values(**values)
            new = new.on_conflict_do_nothing(index_elements=[STUDIES.c.name])
            self.database.write(lambda connection: connection.execute(new))
            row = self.database.read(lambda connection: connection.execute(query).one())
        try:
            known = Identity.read(row.identity)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"Study {name!r} in {self.url} is damaged: what it belongs to cannot be read."
            ) from error
        if changed := known.changes(identity):
            raise OtherStudyError(_other(name, self.url, changed))
        self.unproven = not known.proves(identity)
        return int(row.id)

    def adopt(self, identity: Identity) -> None:
        """Let the study belong to this identity from now on, in place of one of another version."""
        new = sa.update(STUDIES).where(STUDIES.c.id == self.study).values(identity=identity.text())
        self.database.write(lambda connection: connection.execute(new))
        self.unproven = False

    def evaluations(self) -> list[Evaluation]:
        """All evaluations of the study, in the order in which they were finished.

        One that failed and was tried again keeps its place.
        """
        query = sa.select(EVALUATIONS).where(EVALUATIONS.c.study == self.study)
        query = query.order_by(EVALUATIONS.c.id)
        rows = self.database.read(lambda connection: connection.execute(query).all())
        found = [self._record(row, number) for number, row in enumerate(rows)]
        odd = next((e for e in found if len(e.mask) != len(found[0].mask)), None)
        if odd is not None:
            raise self._damaged(
                f"evaluation {odd.number} has a mask of {len(odd.mask)} bits, the first "
                f"{len(found[0].mask)}"
            )
        return found

    def _record(self, row: Any, number: int) -> Evaluation:
        """A row as an evaluation, if it is one."""
        values = dict(row._mapping)
        try:
            metrics = parse_json(row.metrics)
            wrong = _wrong(values | {"metrics": metrics})
        except (ValueError, TypeError) as error:
            raise self._damaged(f"evaluation {row.id!r} has metrics that {error}") from error
        if wrong:
            raise self._damaged(f"evaluation {row.id!r} has {wrong} {values[wrong]!r:.60}")
        del values["id"], values["study"]
        return Evaluation(**{**values, "metrics": metrics, "number": number})

    def _damaged(self, what: str) -> StorageError:
        return StorageError(
            f"Study {self.name!r} in {self.url} is damaged: {what}. Restore a copy, or use another "
            "storage or another name."
        )

    def losses(
        self, mask: str, split: str, samples: int | None = None
    ) -> NDArray[np.float32] | None:
        """The loss of every example [n], None where only the mean is known or not even that.

        Args:
            mask: bits of the mask.
            split: the data.
            samples: of which evaluation; None = of the one that saw most examples.
        """
        query = (
            sa.select(LOSSES.c.each)
            .join(EVALUATIONS, EVALUATIONS.c.id == LOSSES.c.evaluation)
            .where(*self._of(mask, split))
            .order_by(EVALUATIONS.c.samples.desc())
        )
        if samples is not None:
            query = query.where(EVALUATIONS.c.samples == samples)
        found = self.database.read(lambda connection: connection.execute(query).scalar())
        if found is not None and (not isinstance(found, bytes) or len(found) % 4):
            raise self._damaged(f"the losses of mask {mask} are no float32 numbers")
        return None if found is None else unpack(found)

    def _of(self, mask: str, split: str) -> tuple[Any, ...]:
        columns = EVALUATIONS.c
        return columns.study == self.study, columns.mask == mask, columns.split == split

    def add(self, evaluation: Evaluation, each: NDArray[Any] | None = None) -> None:
        """Keep an evaluation, in the place of a failed one of the same mask and split.

        One that another process finished first stays as it is. A claim on the mask ends.

        Args:
            evaluation: what was measured.
            each: the loss of every example [n], kept as float32.

        Raises:
            StorageError: the database cannot be written to; what it holds is untouched.
        """

        def work(connection: sa.Connection) -> None:
            self._lock(connection)
            self._put(connection, evaluation, each)
            self.claims.drop(connection, evaluation.split, [evaluation.mask])

        self.database.write(work)

    def _put(
        self, connection: sa.Connection, evaluation: Evaluation, each: NDArray[Any] | None
    ) -> None:
        columns, values = EVALUATIONS.c, self._values(evaluation)
        query = sa.select(columns.id, columns.samples, columns.status)
        rows = connection.execute(query.where(*self._of(evaluation.mask, evaluation.split))).all()
        failed = next((r.id for r in rows if r.status in RETRIED), None)
        same = {r.samples: r.id for r in rows if r.status not in RETRIED}
        if evaluation.samples in same:
            number = same[evaluation.samples]
        elif failed is not None:
            number = failed
            connection.execute(sa.update(EVALUATIONS).where(columns.id == number).values(**values))
        else:
            number = _new_id(connection.execute(sa.insert(EVALUATIONS).values(**values)))
        known = sa.select(LOSSES.c.evaluation).where(LOSSES.c.evaluation == number)
        if each is not None and evaluation.ok and connection.execute(known).first() is None:
            connection.execute(sa.insert(LOSSES).values(evaluation=number, each=pack(each)))

    def _values(self, evaluation: Evaluation) -> dict[str, Any]:
        values = {column.name: getattr(evaluation, column.name, None) for column in EVALUATIONS.c}
        del values["id"]
        error = None if evaluation.error is None else _storable(evaluation.error)
        metrics = json.dumps(dict(evaluation.metrics))
        return values | {"study": self.study, "metrics": metrics, "error": error}

    def _lock(self, connection: sa.Connection) -> None:
        """Keep other writers of the study out until the end of the transaction."""
        row = sa.select(STUDIES.c.id).where(STUDIES.c.id == self.study)
        connection.execute(row.with_for_update())

    def share(
        self, masks: Sequence[str], split: str, samples: int, again: Collection[str], limit: int
    ) -> tuple[list[str], list[Evaluation]]:
        """Claim masks to measure, and learn what other processes have measured of them.

        If there is neither, other processes hold all of them, and this waits a moment.

        Args:
            masks: bits of the masks that are still to be measured, in the order of preference.
            split: the data.
            samples: examples that an evaluation has to have seen, unless it failed.
            again: those of them whose stored failure does not count.
            limit: how many to claim at most.

        Returns:
            The masks that are this process's to measure, and evaluations that are there.
        """
        if self.database.memory:
            return list(masks), []

        def work(connection: sa.Connection) -> tuple[list[str], list[Evaluation], list[str]]:
            self._lock(connection)
            there = self._found(connection, split, masks)
            done = {
                e.mask: e
                for e in sorted(there, key=lambda e: e.samples)  # a result before a failure
                if e.samples in (0, samples) and (e.mask not in again or e.status not in RETRIED)
            }
            waiting = [mask for mask in masks if mask not in done]
            mine, others = self.claims.take(connection, waiting, split, limit)
            return mine, list(done.values()), others

        mine, found, others = self.database.write(work)
        if others and not mine and not found:
            log.debug("Waiting for what %s measures.", ", ".join(others))
            time.sleep(POLL)
        return mine, found

    def _found(
        self, connection: sa.Connection, split: str, masks: Sequence[str]
    ) -> list[Evaluation]:
        columns = EVALUATIONS.c
        where = (columns.study == self.study) & (columns.split == split) & columns.mask.in_(masks)
        rows = connection.execute(sa.select(EVALUATIONS).where(where).order_by(columns.id)).all()
        return [self._record(row, -1) for row in rows]

    def run(self, settings: Mapping[str, Any]) -> Run:
        """The run with these settings, begun now if there is none."""
        text = json.dumps(dict(settings), sort_keys=True)
        where = (RUNS.c.study == self.study) & (RUNS.c.settings == text)

        def work(connection: sa.Connection) -> Run:
            self._lock(connection)
            row = connection.execute(sa.select(RUNS).where(where)).first()
            if row is not None:
                return Run(int(row.id), settings, int(row.before))
            count = sa.select(sa.func.count()).where(EVALUATIONS.c.study == self.study)
            before = int(connection.execute(count).scalar() or 0)
            values = {"study": self.study, "settings": text, "before": before}
            result = connection.execute(sa.insert(RUNS).values(**values))
            return Run(_new_id(result), settings, before)

        return self.database.write(work)

    def runs(self) -> list[Run]:
        """All runs of the study, oldest first."""
        query = sa.select(RUNS).where(RUNS.c.study == self.study).order_by(RUNS.c.id)
        rows = self.database.read(lambda connection: connection.execute(query).all())
        return [self._run(row) for row in rows]

    def _run(self, row: Any) -> Run:
        try:
            found = {"settings": parse_json(row.settings), "before": row.before}
            stored = read_fields(_StoredRun, found, "")
        except (ValueError, TypeError) as error:
            raise self._damaged(f"run {row.id!r}: {error}") from error
        return Run(int(row.id), found["settings"], stored.before)

    def drop_failed(self) -> int:
        """Remove the evaluations that gave no loss, so that they are tried again; how many."""
        failed = EVALUATIONS.c.status != "ok"

        def work(connection: sa.Connection) -> int:
            self._lock(connection)
            query = sa.select(EVALUATIONS.c.id, failed).where(EVALUATIONS.c.study == self.study)
            rows = connection.execute(query.order_by(EVALUATIONS.c.id)).all()
            for run in connection.execute(sa.select(RUNS).where(RUNS.c.study == self.study)).all():
                gone = sum(bool(bad) for _, bad in rows[: run.before])  # the rest moves up
                moved = sa.update(RUNS).where(RUNS.c.id == run.id)
                connection.execute(moved.values(before=run.before - gone))
            here = EVALUATIONS.c.study == self.study
            connection.execute(sa.delete(EVALUATIONS).where(here, failed))
            return sum(bool(bad) for _, bad in rows)

        return self.database.write(work)


def _other(name: str, url: str, changed: Mapping[str, str | None]) -> str:
    details = "; ".join(text for text in changed.values() if text)
    parts = " and ".join(f"{'other' if p[-1] == 's' else 'another'} {p}" for p in changed)
    return (
        f"Study {name!r} in {url} was made with {parts}{f' ({details})' if details else ''}. Its "
        "evaluations do not apply here. Name this study otherwise, or use another storage."
        f"{ORDER if ' data was ' in details else ''}"
        f"{UNITS if changed.get('units', changed.get('graph', '')) is None else ''}"
    )


def study_names(database: Database) -> list[str]:
    """The studies of a database, oldest first."""
    query = sa.select(STUDIES.c.name).order_by(STUDIES.c.id)
    return list(database.read(lambda connection: connection.execute(query).scalars().all()))


def pack(each: NDArray[Any]) -> bytes:
    """Losses [n] as bytes: float32, little-endian."""
    return np.asarray(each, dtype="<f4").reshape(-1).tobytes()


def unpack(data: bytes) -> NDArray[np.float32]:
    """The losses [n] that `pack` made these bytes of."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _storable(text: str) -> str:
    """Without secrets; what is no UTF-8 or a NUL, which some database refuses, written out."""
    text = redact(text)  # of user code, which may have a secret in it
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _new_id(result: Any) -> int:
    return int(result.inserted_primary_key[0])


def _wrong(values: Mapping[str, Any]) -> str | None:
    """The first column that holds what no evaluation has, None if none does."""
    loss, status, mask = values["loss"], values["status"], values["mask"]
    metrics, least = values["metrics"], {"samples": int, "seconds": float}
    right = {
        "mask": isinstance(mask, str) and mask != "" and not mask.strip("01"),
        "split": whole_of(str(values["split"])) in SPLITS,
        "status": status in STATUSES,
        "loss": _finite(loss) if status == "ok" else loss is None,
        "metrics": isinstance(metrics, dict) and all(map(_is_number, metrics.values())),
        **{k: isinstance(values[k], int | kind) and values[k] >= 0 for k, kind in least.items()},
        "error": isinstance(values["error"], str | None),
        "origin": isinstance(values["origin"], str),
        "predicted": values["predicted"] is None or _is_number(values["predicted"]),
        "deviation": values["deviation"] is None or _is_number(values["deviation"]),
    }
    return next((name for name, fine in right.items() if not fine), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return _is_number(value) and isfinite(value)
