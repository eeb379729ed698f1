"""Bringing the schema up to date, on both engines, with the migrations that ship with the package.

On the embedded default the server does it at its start; on PostgreSQL `sessionapi migrate` does.
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
"""Works with it and without; the timeout is that of connecting."""
LOCK_SECONDS = 0.5
"""How long a migration waits for a table: all who come after it wait as long, of their DATABASE_TIMEOUT."""
TRIES = 40
BUSY = "somebody holds a table that a migration has to change (see pg_stat_activity); run it again later"
_LOCK_NOT_AVAILABLE = "55P03"
_ONE_AT_A_TIME = 7_305_201_139
"""An advisory lock of our own: whoever migrates second finds everything done."""
T = TypeVar("T")


async def migrate(url: str, *, lock_seconds: float = LOCK_SECONDS, tries: int = TRIES) -> str:
    """Bring the schema to the newest version, in one transaction, and return which it is now.

    Servers may go on meanwhile: a lock that doesn't come soon is given up, and tried for again. A schema of a
    newer sessionapi stays as it is, if this one can work with it. StartupError if any of that can't be.
    """

    def upgrade(connection: sa.Connection) -> str:
        return _upgrade(connection, lock_seconds)

    for _ in range(tries - 1):
        with suppress(Locked):
            return await _run(url, upgrade)
        await asyncio.sleep(lock_seconds / 2)
    return await _run(url, upgrade)


async def check(url: str) -> str:
    """Return which version the schema is of; StartupError unless it is ours or a newer one that will do."""
    return await _run(url, _compare)


def folder() -> Path:
    """Return where the migrations are: in the package, or beside it in the source tree."""
    shipped = Path(__file__).parents[1] / "migrations"
    return shipped if shipped.exists() else Path(__file__).parents[3] / "alembic"


def revisions() -> list[str]:
    """Return the ids of all migrations, the oldest first: the numbers that their files begin with."""
    return sorted(path.name.partition("_")[0] for path in folder().glob("versions/[0-9]*.py"))


def newest() -> str:
    """Return the version of this sessionapi's schema."""
    return revisions()[-1]


class Locked(StartupError):
    """Somebody holds a table that a migration has to change."""


def _upgrade(connection: sa.Connection, lock_seconds: float) -> str:
    if connection.dialect.name == "postgresql":
        _wait_politely(connection, lock_seconds)
    if serving := _usable_version(connection):
        return serving
    from alembic import command, config  # noqa: PLC0415 - 9 MB, of which most starts have no need

    told = config.Config()
    told.set_main_option("script_location", str(folder()).replace("%", "%%"))
    told.attributes["connection"] = connection
    command.upgrade(told, "head")
    return newest()


def _wait_politely(connection: sa.Connection, lock_seconds: float) -> None:
    """Let one at a time migrate; for tables wait little, for whoever comes later waits behind us."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(lock_seconds * 1000)}")


def _compare(connection: sa.Connection) -> str:
    if serving := _usable_version(connection):
        return serving
    raise StartupError("the database has an older schema; run: sessionapi migrate")


def _usable_version(connection: sa.Connection) -> str | None:
    """Return which version the schema is of, if it is our own or a newer one; StartupError if that won't do.

    During a rolling upgrade the schema is a version ahead of most processes, and any of them may have to
    start again. What it needs is there, for a version only adds: what is no longer used, the next removes.
    """
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    known = revisions()
    if version is None or version in known[:-1]:
        return None
    if version != known[-1] and (obstacles := sorted(_obstacles(connection))):
        raise StartupError(
            f"the database has schema {version}, of a newer sessionapi that this version can't work beside: "
            + ", ".join(obstacles)
        )
    return version


def _obstacles(connection: sa.Connection) -> Iterator[str]:
    """Yield what our statements name and the schema lacks, and what they must fill and don't know."""
    there = sa.inspect(connection).get_multi_columns()
    for table in metadata.tables.values():
        found = {column["name"]: column for column in there.get((None, table.name), [])}
        ours = set(table.columns.keys())
        yield from (f"no {table.name}.{name}" for name in ours - found.keys())
        for name in found.keys() - ours:
            if not found[name]["nullable"] and found[name]["default"] is None:
                yield f"{table.name}.{name} must be given"


async def _run(url: str, work: Callable[[sa.Connection], T]) -> T:
    writer, reader = engines.create(url, AS_IF_BEHIND_PGBOUNCER)
    try:
        if database_url.is_sqlite(url):
            sqlite.try_opening(url)
        async with writer.begin() as connection:
            return await connection.run_sync(work)
    except (DBAPIError, sqlite3.Error, OSError) as problem:
        said = (getattr(problem, "strerror", None) or str(getattr(problem, "orig", problem))).splitlines()[0]
        if getattr(getattr(problem, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise Locked(BUSY) from problem
        raise _unusable(url, said) from problem
    except Unavailable as problem:
        raise _unusable(url, problem.cause) from problem
    finally:
        await writer.dispose()
        await reader.dispose()


def _unusable(url: str, said: str) -> StartupError:
    where, advice = database_url.shown(url), database_url.advice(url)
    return StartupError(f"the database at {where} can't be used: {said}; {advice}")
