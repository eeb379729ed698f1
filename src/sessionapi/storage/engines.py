"""The two engines: how each is connected to, and how its transactions begin.

SQLite has one writer: a pool of one connection that begins IMMEDIATE, so that a write never finds in its
middle that it must wait, beside readers that begin deferred and see a snapshot (WAL). `synchronous=FULL`
makes a commit an fdatasync of the log: what was acknowledged is on the disk.
"""

from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, connect
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sessionapi.errors import StartupError
from sessionapi.storage import cursors

READERS = 4
BUSY_TIMEOUT = 10_000
"""Milliseconds that a write waits for another process's write."""
POOL_TIMEOUT = 10
"""Seconds that a transaction waits for a connection of the pool."""


def create(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) of a plain `sqlite:///` or `postgresql://` address."""
    _refuse_malformed(url)
    if url.startswith("sqlite:"):
        return _sqlite(url, "BEGIN IMMEDIATE", 1), _sqlite(url, "BEGIN", READERS)
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=10,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,  # a trace in the log would show them: hashes, names, digests
        json_deserializer=from_json,
    )
    return engine, engine


def _refuse_malformed(url: str) -> None:
    try:
        sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # their texts may hold a part of the password
        raise StartupError(
            "SESSIONAPI_DATABASE_URL is no address as in postgresql://user:password@host/name; in a password "
            "characters as @ : / are written %40 %3A %2F"
        ) from None


def try_opening(url: str) -> None:
    """Open an SQLite file once as every connection will, and raise sqlite3.Error if that can't be.

    Without a thread: aiosqlite leaves one behind a failed opening, which prints a trace if the event loop
    has ended by then.
    """
    with closing(connect(sqlite_path(url))) as connection:
        set_pragmas(connection, None)


def sqlite_path(url: str) -> Path:
    """Return the file of an `sqlite:///` address."""
    return Path(sa.make_url(url).database or "")


def _sqlite(url: str, begin: str, size: int) -> AsyncEngine:
    engine = create_async_engine(
        url.replace("sqlite:", "sqlite+aiosqlite:", 1),
        poolclass=sa.AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,  # a trace in the log would show them: hashes, names, digests
        json_deserializer=from_json,  # a tenth of the time of the standard library's
        connect_args={"async_creator_fn": cursors.connect},
    )
    sa.event.listen(engine.sync_engine, "connect", set_pragmas)
    sa.event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def set_pragmas(connection: Connection | Any, _record: object) -> None:
    """Prepare a new SQLite connection; the driver's own BEGIN is off, for the engine says which one."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
