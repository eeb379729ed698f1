"""SQLite: how it is connected to, and how its transactions begin.

It has one writer: a pool of one connection that begins IMMEDIATE, so that a write never finds in its middle
that it must wait, beside readers that begin deferred and see a snapshot (WAL). `synchronous=FULL` makes a
commit an fdatasync of the log: what was acknowledged is on the disk.
"""

from contextlib import closing
from sqlite3 import Connection, connect
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sessionapi.storage import addresses, cursors

READERS = 4
BUSY_TIMEOUT = 10_000
"""Milliseconds that a write waits for another process's write."""
CACHE_KIB = 500
"""Pages that a connection keeps: SQLite's 2,000 for each of five would be resident without being faster."""
POOL_TIMEOUT = 10
"""Seconds that a transaction waits for a connection of the pool."""


def create(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) of an `sqlite:///` address."""
    return _engine(url, "BEGIN IMMEDIATE", 1), _engine(url, "BEGIN", READERS)


def try_opening(url: str) -> None:
    """Open the file once as every connection will, and raise sqlite3.Error if that can't be.

    Without a thread: aiosqlite leaves one behind a failed opening, which prints a trace if the event loop
    has ended by then.
    """
    with closing(connect(addresses.sqlite_path(url))) as connection:
        set_pragmas(connection, None)


def _engine(url: str, begin: str, size: int) -> AsyncEngine:
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
    sa.event.listen(engine.sync_engine, "begin", lambda connection: _begin(connection, begin))
    return engine


def _begin(connection: sa.Connection, statement: str) -> None:
    driver: Any = connection.connection.driver_connection
    driver.begins = statement


def set_pragmas(connection: Connection | Any, _record: object) -> None:
    """Prepare a new connection; the driver's own BEGIN is off, for the engine says which one."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT}",
        f"cache_size=-{CACHE_KIB}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
