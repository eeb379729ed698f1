"""SQLite connections, and how their transactions begin.

Writes use BEGIN IMMEDIATE on a single connection, so a transaction never has to wait for the write lock
halfway through. Reads are deferred and see a WAL snapshot. With `synchronous=FULL` a commit includes an
fdatasync of the log, so acknowledged changes are on the disk.
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
"""Page cache of a connection in KiB.

SQLite's default of 2,000 for each of five connections would occupy memory without being faster.
"""
POOL_TIMEOUT = 10
"""Seconds that a transaction waits for a pooled connection."""


def create(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) for an `sqlite:///` URL."""
    file = SqliteFile(database_url.sqlite_path(url))
    writer, reader = (
        _engine(file, sqlite_cursor.BEGIN_WRITE, 1),
        _engine(file, sqlite_cursor.BEGIN_READ, READERS),
    )
    sa.event.listen(reader.sync_engine, "engine_disposed", lambda _engine: file.close())
    return writer, reader


def try_opening(url: str) -> None:
    """Open the file once, as every connection will, and raise sqlite3.Error or OSError on failure.

    A missing file is created, readable by its owner alone.

    This does not use aiosqlite, which leaves a thread running after a failure to open. The thread prints a
    traceback if the event loop has ended by then.
    """
    path = database_url.sqlite_path(url)
    sqlite_file.make_private(path)
    with closing(sqlite_file.connect(path)) as connection:
        set_pragmas(connection, None)
        connection.execute("SELECT count(*) FROM sqlite_master")  # opens the log and its index


def _engine(file: SqliteFile, begin: str, size: int) -> AsyncEngine:
    def connect(*_arguments: Any, **_options: Any) -> sqlite_cursor.Connection:
        return sqlite_cursor.connect(file, begin)

    engine = create_async_engine(
        "sqlite+aiosqlite:///opened by the creator below",
        poolclass=sa.AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,  # a logged traceback would contain hashes, names and digests
        json_deserializer=from_json,  # takes a tenth of the time of the standard library's
        connect_args={"async_creator_fn": connect},
    )
    sa.event.listen(engine.sync_engine, "connect", set_pragmas)
    sa.event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _begin(connection: sa.Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.begins = True


def set_pragmas(connection: Connection | Any, _record: object) -> None:
    """Prepare a new connection. The driver's own BEGIN is turned off, because the engine chooses the kind."""
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
