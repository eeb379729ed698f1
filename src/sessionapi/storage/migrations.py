"""Schema migrations, on both engines, with the migration files that ship with the package.

On the embedded database the server runs them when it starts; on PostgreSQL `sessionapi migrate` does.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sessionapi.errors import StartupError, Unavailable
from sessionapi.storage import database_url, engines, sqlite
from sessionapi.storage.database_url import Options
from sessionapi.storage.tables import metadata

AS_IF_BEHIND_PGBOUNCER = Options(timeout=10, pgbouncer=True)
"""Options that work with and without PgBouncer. The timeout applies to connecting."""
LOCK_SECONDS = 0.5
"""Seconds that a migration waits for a table lock.

For that time later queries queue behind it, which counts towards their DATABASE_TIMEOUT.
"""
TRIES = 40
BUSY = "another transaction holds a table that a migration must change (see pg_stat_activity); retry later"
_LOCK_NOT_AVAILABLE = "55P03"
_ONE_AT_A_TIME = 7_305_201_139
"""Key of our advisory lock: the second process to migrate finds everything done."""
T = TypeVar("T")


async def migrate(url: str, *, lock_seconds: float = LOCK_SECONDS, tries: int = TRIES) -> str:
    """Upgrade the schema to the newest version in one transaction, and return the resulting version.

    Servers may keep running: a lock that is not granted soon is given up and requested again. The schema of a
    newer sessionapi stays as it is if this version can work with it. Raises StartupError if the schema cannot
    be upgraded or used.
    """

    def upgrade(connection: sa.Connection) -> str:
        return _upgrade(connection, lock_seconds)

    for _ in range(tries - 1):
        with suppress(Locked):
            return await _run(url, upgrade)
        await asyncio.sleep(lock_seconds / 2)
    return await _run(url, upgrade)


async def check(url: str) -> str:
    """Return the schema version; StartupError unless it is ours or a newer, compatible one."""
    return await _run(url, _compare)


def folder() -> Path:
    """Return the directory of the migrations, in the package or next to it in the source tree."""
    shipped = Path(__file__).parents[1] / "migrations"
    return shipped if shipped.exists() else Path(__file__).parents[3] / "alembic"


def revisions() -> list[str]:
    """Return the ids of all migrations, oldest first: the numbers that their file names begin with."""
    return sorted(path.name.partition("_")[0] for path in folder().glob("versions/[0-9]*.py"))


def newest() -> str:
    """Return the schema version of this sessionapi."""
    return revisions()[-1]


class Locked(StartupError):
    """Another transaction holds a table that a migration has to change."""


def _upgrade(connection: sa.Connection, lock_seconds: float) -> str:
    if connection.dialect.name == "postgresql":
        _wait_politely(connection, lock_seconds)
    if serving := _usable_version(connection):
        return serving
    from alembic import command, config  # noqa: PLC0415 - 9 MB that most starts do not need

    configuration = config.Config()
    configuration.set_main_option("script_location", str(folder()).replace("%", "%%"))
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")
    return newest()


def _wait_politely(connection: sa.Connection, lock_seconds: float) -> None:
    """Serialise migrations with an advisory lock, and give up quickly on table locks.

    While we wait for a table lock, later queries queue behind us.
    """
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(lock_seconds * 1000)}")


def _compare(connection: sa.Connection) -> str:
    if serving := _usable_version(connection):
        return serving
    raise StartupError("the database has an older schema; run: sessionapi migrate")


def _usable_version(connection: sa.Connection) -> str | None:
    """Return the schema version if it is ours or a newer, compatible one, and None if it is older.

    During a rolling upgrade the schema is one version ahead of most processes, and any of them may have to
    restart. Everything they need is still there, because a version only adds: the next version removes what
    is no longer used. Raises StartupError if the schema is incompatible.
    """
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    known = revisions()
    if version is None or version in known[:-1]:
        return None
    if version != known[-1] and (obstacles := sorted(_obstacles(connection))):
        raise StartupError(
            f"the database has schema {version}, of a newer sessionapi that this version cannot work with: "
            + ", ".join(obstacles)
        )
    return version


def _obstacles(connection: sa.Connection) -> Iterator[str]:
    """Yield each incompatibility: a column we use that is missing, or a required one that we don't know."""
    there = sa.inspect(connection).get_multi_columns()
    for table in metadata.tables.values():
        found = {column["name"]: column for column in there.get((None, table.name), [])}
        ours = set(table.columns.keys())
        yield from (f"{table.name}.{name} is missing" for name in ours - found.keys())
        for name in found.keys() - ours:
            if not found[name]["nullable"] and found[name]["default"] is None:
                yield f"{table.name}.{name} is required"


async def _run(url: str, work: Callable[[sa.Connection], T]) -> T:
    writer, reader = engines.create(url, AS_IF_BEHIND_PGBOUNCER)
    try:
        if database_url.is_sqlite(url):
            sqlite.try_opening(url)
        async with writer.begin() as connection:
            return await connection.run_sync(work)
    except (DBAPIError, sqlite3.Error, OSError) as problem:
        error = (getattr(problem, "strerror", None) or str(getattr(problem, "orig", problem))).splitlines()[0]
        if getattr(getattr(problem, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise Locked(BUSY) from problem
        raise _unusable(url, error) from problem
    except Unavailable as problem:
        raise _unusable(url, problem.cause) from problem
    finally:
        await writer.dispose()
        await reader.dispose()


def _unusable(url: str, error: str) -> StartupError:
    where, advice = database_url.shown(url), database_url.advice(url)
    return StartupError(f"the database at {where} can't be used: {error}; {advice}")
