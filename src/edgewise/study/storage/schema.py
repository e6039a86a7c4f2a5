"""The tables of a study database, and the way from each older schema to this one."""

from collections.abc import Callable

import sqlalchemy as sa

from ...errors import StorageError

SCHEMA = 2

META = sa.MetaData()
VERSIONS = sa.Table("edgewise_schema", META, sa.Column("version", sa.Integer, primary_key=True))
STUDIES = sa.Table(
    "studies",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(200), unique=True, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
)
RUNS = sa.Table(
    "runs",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.ForeignKey("studies.id"), nullable=False),
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("before", sa.Integer, nullable=False),
)
EVALUATIONS = sa.Table(
    "evaluations",
    META,
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
LOSSES = sa.Table(  # beside the evaluations, so that reading those does not read these
    "losses",
    META,
    sa.Column("evaluation", sa.ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    sa.Column("each", sa.LargeBinary, nullable=False),  # little-endian float32, one an example
)
CLAIMS = sa.Table(  # masks that some process measures at the moment
    "claims",
    META,
    sa.Column("study", sa.ForeignKey("studies.id"), primary_key=True),
    sa.Column("mask", sa.Text, primary_key=True),
    sa.Column("split", sa.String(20), primary_key=True),
    sa.Column("worker", sa.String(200), nullable=False),
    sa.Column("beat", sa.Integer, nullable=False),  # counts up while the worker lives
)

_ONE_RUN = sa.Index("one_run_per_settings", RUNS.c.study, RUNS.c.settings, unique=True)


def is_current(connection: sa.Connection) -> bool:
    """Whether the database has this program's schema.

    Raises:
        StorageError: the schema is newer.
    """
    version = _version(connection)
    if version is not None and version > SCHEMA:
        raise StorageError(
            f"The study database has schema {version}; this edgewise knows up to {SCHEMA}. Upgrade "
            "edgewise, or use another storage."
        )
    return version == SCHEMA


def is_empty(connection: sa.Connection) -> bool:
    """Whether nothing of edgewise is in the database yet."""
    return _version(connection) is None


def prepare(connection: sa.Connection) -> None:
    """Make the tables, or bring those of an older schema up to date, within one transaction.

    Raises:
        StorageError: the schema is newer.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        connection.execute(sa.text("select pg_advisory_xact_lock(20250119)"))
    if is_current(connection):
        return
    version = _version(connection)
    if version is None:
        META.create_all(connection)
        connection.execute(sa.insert(VERSIONS).values(version=SCHEMA))
        return
    for number in range(version, SCHEMA):
        _MIGRATIONS[number](connection)
    connection.execute(sa.update(VERSIONS).values(version=SCHEMA))


def _version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table(VERSIONS.name):
        return None
    version = connection.execute(sa.select(sa.func.max(VERSIONS.c.version))).scalar()
    if version is not None and not (isinstance(version, int) and version > 0):
        raise StorageError(
            f"The study database is damaged: its schema is {version!r}. Restore a copy, or use "
            "another storage."
        )
    return version


def _from_1(connection: sa.Connection) -> None:
    """Losses of every example and claims are new; two processes could begin the same run twice."""
    first = sa.select(sa.func.min(RUNS.c.id)).group_by(RUNS.c.study, RUNS.c.settings)
    connection.execute(sa.delete(RUNS).where(RUNS.c.id.not_in(first)))
    _ONE_RUN.create(connection)
    META.create_all(connection, [LOSSES, CLAIMS])


_MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _from_1}
