"""Bringing the schema up to date, on both engines, with the migrations that ship with the package.

On the embedded default the server does it at its start; on PostgreSQL `sessionapi migrate` does.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
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
    config = _config()
    for left in reversed(range(tries)):
        try:
            await _run(url, lambda connection: _upgrade(connection, config, lock_seconds))
        except Locked:
            if not left:
                raise
            await asyncio.sleep(lock_seconds / 2)
        else:
            return


async def check(url: str) -> None:
    """Raise StartupError unless the schema is of this version, saying what to do."""
    script = ScriptDirectory.from_config(_config())
    await _run(url, lambda connection: _compare(connection, script))


def _config() -> Config:
    shipped = Path(__file__).parents[1] / "migrations"
    in_source_tree = Path(__file__).parents[3] / "alembic"
    config = Config()
    config.set_main_option("script_location", str(shipped if shipped.exists() else in_source_tree))
    return config


class Locked(StartupError):
    """Somebody holds a table that a migration has to change."""


def _upgrade(connection: sa.Connection, config: Config, lock_seconds: float) -> None:
    if connection.dialect.name == "postgresql":
        _wait_politely(connection, lock_seconds)
    _refuse_newer(connection, ScriptDirectory.from_config(config))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _wait_politely(connection: sa.Connection, lock_seconds: float) -> None:
    """Let one at a time migrate; for tables wait little, for whoever comes later waits behind us."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(lock_seconds * 1000)}")


def _compare(connection: sa.Connection, script: ScriptDirectory) -> None:
    _refuse_newer(connection, script)
    if MigrationContext.configure(connection).get_current_revision() != script.get_current_head():
        raise StartupError("the database has an older schema; run: sessionapi migrate")


def _refuse_newer(connection: sa.Connection, script: ScriptDirectory) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise StartupError(
            f"the database has schema {current}, which this version doesn't know: "
            "it is from a newer sessionapi"
        )


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
