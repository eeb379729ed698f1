"""SQLite: how it is connected to, and how its transactions begin.

It has one writer: a pool of one connection that begins IMMEDIATE, so that a write never finds in its middle
that it must wait, beside readers that begin deferred and see a snapshot (WAL). `synchronous=FULL` makes a
commit an fdatasync of the log: what was acknowledged is on the disk.
"""

from contextlib import closing
from sqlite3 import Connection
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sessionapi.storage import database_url, sqlite_cursor, sqlite_file
from sessionapi.storage.sqlite_file import BUSY_TIMEOUT, SqliteFile

READERS = 4
CACHE_KIB = 500
"""Pages that a connection keeps: SQLite's 2,000 for each of five would be resident without being faster."""
POOL_TIMEOUT = 10
"""Seconds that a transaction waits for a connection of the pool."""


def create(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) of an `sqlite:///` address."""
    file = SqliteFile(database_url.sqlite_path(url))
    writer, reader = (
        _engine(file, sqlite_cursor.BEGIN_WRITE, 1),
        _engine(file, sqlite_cursor.BEGIN_READ, READERS),
    )
    sa.event.listen(reader.sync_engine, "engine_disposed", lambda _engine: file.close())
    return writer, reader


def try_opening(url: str) -> None:
    """Open the file once as every connection will, and raise sqlite3.Error or OSError if that can't be.

    A file that is missing is created, so that only its owner may read it.

    Without a thread: aiosqlite leaves one behind a failed opening, which prints a trace if the event loop
    has ended by then.
    """
    path = database_url.sqlite_path(url)
    sqlite_file.make_private(path)
    with closing(sqlite_file.connect(path)) as connection:
        set_pragmas(connection, None)
        connection.execute("SELECT count(*) FROM sqlite_master")  # which opens the log and its index


def _engine(file: SqliteFile, begin: str, size: int) -> AsyncEngine:
    def connect(*_arguments: Any, **_options: Any) -> sqlite_cursor.Connection:
        return sqlite_cursor.connect(file, begin)

    engine = create_async_engine(
        "sqlite+aiosqlite:///opened by the creator below",
        poolclass=sa.AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,  # a trace in the log would show them: hashes, names, digests
        json_deserializer=from_json,  # a tenth of the time of the standard library's
        connect_args={"async_creator_fn": connect},
    )
    sa.event.listen(engine.sync_engine, "connect", set_pragmas)
    sa.event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _begin(connection: sa.Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.begins = True


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
