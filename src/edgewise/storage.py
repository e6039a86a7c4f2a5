"""Where evaluations are kept: any database that SQLAlchemy reaches, SQLite by default."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine as Database
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from .errors import StorageError
from .records import Evaluation

SCHEMA = 1

_META = sa.MetaData()
_SCHEMA = sa.Table("edgewise_schema", _META, sa.Column("version", sa.Integer, primary_key=True))
_STUDIES = sa.Table(
    "studies",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(200), unique=True, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
)
_RUNS = sa.Table(
    "runs",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.ForeignKey("studies.id"), nullable=False),
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("before", sa.Integer, nullable=False),
)
_EVALUATIONS = sa.Table(
    "evaluations",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.ForeignKey("studies.id"), nullable=False, index=True),
    sa.Column("mask", sa.Text, nullable=False),
    sa.Column("split", sa.String(20), nullable=False),
    sa.Column("loss", sa.Double),
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("origin", sa.String(40), nullable=False),
    sa.Column("predicted", sa.Double),
    sa.Column("deviation", sa.Double),
    sa.UniqueConstraint("study", "mask", "split", "samples", name="one_result_per_mask"),
)


@dataclass(frozen=True)
class Run:
    """One call of study.run: its settings and how many evaluations there were before it."""

    id: int
    settings: Mapping[str, Any]
    before: int


class Storage:
    """The evaluations of one study.

    Args:
        url: an SQLAlchemy URL such as "sqlite:///runs.db"; None = memory only.
        name: of the study; several studies may share a database.
        identity: what the study belongs to (graph, weights, objective, by fingerprint).

    Raises:
        StorageError: the study belongs to something else, the database is newer than this
            program, damaged, or cannot be written to.
    """

    def __init__(self, url: str | None, name: str, identity: Mapping[str, str]) -> None:
        self.database = _connect(url or "sqlite://")
        self.url = self.database.url.render_as_string(hide_password=True)
        try:
            _META.create_all(self.database)
            self._check_schema()
            self.study = self._open(name, dict(identity))
        except StorageError:
            raise
        except SQLAlchemyError as error:
            raise _unusable(self.url, error) from error

    def _check_schema(self) -> None:
        with self.database.begin() as connection:
            version = connection.execute(sa.select(sa.func.max(_SCHEMA.c.version))).scalar()
            if version is None:
                connection.execute(sa.insert(_SCHEMA).values(version=SCHEMA))
            elif version > SCHEMA:
                raise StorageError(
                    f"The study database {self.url} has schema {version}; this edgewise knows up "
                    f"to {SCHEMA}. Upgrade edgewise, or use another storage."
                )

    def _open(self, name: str, identity: dict[str, str]) -> int:
        with self.database.begin() as connection:
            row = connection.execute(sa.select(_STUDIES).where(_STUDIES.c.name == name)).first()
            if row is None:
                values = {"name": name, "identity": json.dumps(identity, sort_keys=True)}
                return _new_id(connection.execute(sa.insert(_STUDIES).values(**values)))
            known: dict[str, str] = json.loads(row.identity)
        changed = [key for key in identity if known.get(key) != identity[key]]
        if changed:
            raise StorageError(
                f"Study {name!r} in {self.url} was made with another {' and '.join(changed)}. Its "
                "evaluations do not apply here. Name this study otherwise, or use another storage."
            )
        return int(row.id)

    def evaluations(self) -> list[Evaluation]:
        """All evaluations of the study, in the order in which they were finished."""
        query = sa.select(_EVALUATIONS).where(_EVALUATIONS.c.study == self.study)
        try:
            with self.database.connect() as connection:
                rows = connection.execute(query.order_by(_EVALUATIONS.c.id)).all()
        except SQLAlchemyError as error:
            raise _unusable(self.url, error) from error
        return [_record(row, number) for number, row in enumerate(rows)]

    def add(self, evaluation: Evaluation) -> None:
        """Keep an evaluation, in the place of a failed one of the same mask and split.

        One that another process finished first stays as it is.

        Raises:
            StorageError: the database cannot be written to; what it holds is untouched.
        """
        values = {column.name: getattr(evaluation, column.name, None) for column in _EVALUATIONS.c}
        del values["id"]
        values |= {"study": self.study, "metrics": json.dumps(dict(evaluation.metrics))}
        same = [_EVALUATIONS.c[k] == values[k] for k in ("study", "mask", "split")]
        failed = _EVALUATIONS.c.status.in_(("failed", "out of memory"))
        try:
            with self.database.begin() as connection:
                connection.execute(sa.delete(_EVALUATIONS).where(*same, failed))
                connection.execute(sa.insert(_EVALUATIONS).values(**values))
        except sa.exc.IntegrityError:
            return
        except SQLAlchemyError as error:
            raise _unusable(self.url, error) from error

    def run(self, settings: Mapping[str, Any]) -> Run:
        """The run with these settings, begun now if there is none."""
        text = json.dumps(dict(settings), sort_keys=True)
        where = (_RUNS.c.study == self.study) & (_RUNS.c.settings == text)
        try:
            with self.database.begin() as connection:
                row = connection.execute(sa.select(_RUNS).where(where)).first()
                if row is not None:
                    return Run(int(row.id), settings, int(row.before))
                count = sa.select(sa.func.count()).where(_EVALUATIONS.c.study == self.study)
                before = int(connection.execute(count).scalar() or 0)
                values = {"study": self.study, "settings": text, "before": before}
                return Run(
                    _new_id(connection.execute(sa.insert(_RUNS).values(**values))), settings, before
                )
        except SQLAlchemyError as error:
            raise _unusable(self.url, error) from error

    def runs(self) -> list[Run]:
        """All runs of the study, oldest first."""
        query = sa.select(_RUNS).where(_RUNS.c.study == self.study).order_by(_RUNS.c.id)
        try:
            with self.database.connect() as connection:
                rows = connection.execute(query).all()
        except SQLAlchemyError as error:
            raise _unusable(self.url, error) from error
        return [Run(int(r.id), json.loads(r.settings), int(r.before)) for r in rows]


def _new_id(result: Any) -> int:
    return int(result.inserted_primary_key[0])


def _connect(url: str) -> Database:
    try:
        memory = url in ("sqlite://", "sqlite:///:memory:")
        options: dict[str, Any] = {"poolclass": sa.pool.StaticPool} if memory else {}
        database = sa.create_engine(url, **options)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise StorageError(
            f"The storage URL is no database that can be opened: {error}. Use for example "
            '"sqlite:///runs.db".'
        ) from error
    if database.dialect.name == "sqlite":
        _make_folder(database.url.database)
        sa.event.listen(database, "connect", _configure_sqlite)
    return database


def _make_folder(path: str | None) -> None:
    folder = os.path.dirname(path or "")
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder of the study database cannot be made: {error}") from error


def _configure_sqlite(connection: Any, record: Any) -> None:
    """Readers and a writer side by side; a finished evaluation survives a crash."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _record(row: Any, number: int) -> Evaluation:
    values = dict(row._mapping)
    del values["id"], values["study"]
    return Evaluation(**{**values, "metrics": json.loads(row.metrics), "number": number})


def _unusable(url: str, error: SQLAlchemyError) -> StorageError:
    cause = str(getattr(error, "orig", None) or error)
    if "not a database" in cause or "malformed" in cause:
        advice = "The file is damaged or is no database. Move it away, or restore a copy."
    elif "readonly" in cause or "unable to open" in cause:
        advice = "Check that the file and its folder can be written to."
    elif "full" in cause:
        advice = "The disk is full. Finished evaluations are kept; free some space and resume."
    elif isinstance(error, OperationalError | DatabaseError):
        advice = "Finished evaluations are kept; run the same command again to resume."
    else:
        advice = "Use another storage."
    return StorageError(f"The study database {url} cannot be used: {cause}. {advice}")
