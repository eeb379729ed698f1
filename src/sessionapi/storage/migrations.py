"""Bringing the schema up to date, on both engines, with the migrations that ship with the package.

On the embedded default the server does it at its start; on PostgreSQL `sessionapi migrate` does.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sessionapi.errors import StartupError, Unavailable
from sessionapi.storage import addresses, engines, sqlite
from sessionapi.storage.postgresql import Options

AS_IF_BEHIND_PGBOUNCER = Options(timeout=10, pgbouncer=True)
"""Works with it and without; the timeout is that of connecting."""
LOCK_SECONDS = 2
"""How long a migration waits for a table: as long as all who come after it wait for it too."""
TRIES = 10
BUSY = "somebody holds a table that a migration has to change (see pg_stat_activity); run it again later"
_LOCK_NOT_AVAILABLE = "55P03"
_ONE_AT_A_TIME = 7_305_201_139
"""An advisory lock of our own: whoever migrates second finds everything done."""


async def migrate(url: str, *, lock_seconds: float = LOCK_SECONDS, tries: int = TRIES) -> None:
    """Bring the schema to the newest version, in one transaction; StartupError if that can't be.

    Servers may go on meanwhile: a lock that doesn't come soon is given up, and tried for again.
    """
    for left in reversed(range(tries)):
        try:
            await _run(url, lambda connection: _upgrade(connection, lock_seconds))
        except Locked:
            if not left:
                raise
            await asyncio.sleep(lock_seconds / 2)
        else:
            return


async def check(url: str) -> None:
    """Raise StartupError unless the schema is of this version, saying what to do."""
    await _run(url, _compare)


def folder() -> Path:
    """Return where the migrations are: in the package, or beside it in the source tree."""
    shipped = Path(__file__).parents[1] / "migrations"
    return shipped if shipped.exists() else Path(__file__).parents[3] / "alembic"


def revisions() -> list[str]:
    """Return the ids of all migrations, the oldest first: the numbers that their files begin with."""
    return sorted(path.name.partition("_")[0] for path in folder().glob("versions/[0-9]*.py"))


class Locked(StartupError):
    """Somebody holds a table that a migration has to change."""


def _upgrade(connection: sa.Connection, lock_seconds: float) -> None:
    if connection.dialect.name == "postgresql":
        _wait_politely(connection, lock_seconds)
    if _version(connection) == revisions()[-1]:
        return
    from alembic import command, config  # noqa: PLC0415 - 9 MB, of which most starts have no need

    told = config.Config()
    told.set_main_option("script_location", str(folder()))
    told.attributes["connection"] = connection
    command.upgrade(told, "head")


def _wait_politely(connection: sa.Connection, lock_seconds: float) -> None:
    """Let one at a time migrate; for tables wait little, for whoever comes later waits behind us."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(lock_seconds * 1000)}")


def _compare(connection: sa.Connection) -> None:
    if _version(connection) != revisions()[-1]:
        raise StartupError("the database has an older schema; run: sessionapi migrate")


def _version(connection: sa.Connection) -> str | None:
    """Return which migration the schema is at, if any; StartupError if it is one that we don't know."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    current: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if current is not None and current not in revisions():
        raise StartupError(
            f"the database has schema {current}, which this version doesn't know: "
            "it is from a newer sessionapi"
        )
    return current


async def _run(url: str, work: Callable[[sa.Connection], None]) -> None:
    writer, reader = engines.create(url, AS_IF_BEHIND_PGBOUNCER)
    try:
        if addresses.is_sqlite(url):
            sqlite.try_opening(url)
        async with writer.begin() as connection:
            await connection.run_sync(work)
    except (DBAPIError, sqlite3.Error, OSError) as problem:
        said = str(getattr(problem, "orig", problem)).splitlines()[0]
        if getattr(getattr(problem, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise Locked(BUSY) from problem
        raise _unusable(url, said) from problem
    except Unavailable as problem:
        raise _unusable(url, problem.cause) from problem
    finally:
        await writer.dispose()
        await reader.dispose()


def _unusable(url: str, said: str) -> StartupError:
    return StartupError(f"the database at {addresses.shown(url)} can't be used: {said}")
