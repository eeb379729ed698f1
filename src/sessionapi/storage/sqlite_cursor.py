"""A cursor for aiosqlite that needs one thread switch per statement instead of four.

aiosqlite runs each connection in a separate thread. It switches to that thread to open a cursor, to run the
statement, to fetch the rows, and to close the cursor. These four switches take most of the time of a small
statement (measured: with one switch a login takes half as long).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import aiosqlite

from sessionapi.storage.sqlite_file import SqliteFile

Row = tuple[Any, ...]

BEGIN_READ = "BEGIN"
BEGIN_WRITE = "BEGIN IMMEDIATE"


def connect(file: SqliteFile, begin: str) -> "Connection":
    """Return a connection for SQLAlchemy's `async_creator_fn`. Its thread ends with the process."""
    connection = Connection(file, begin)
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does for its own connections
    return connection


class Connection(aiosqlite.Connection):
    """Connection whose cursors have fetched all rows when a statement returns.

    `begin` is the statement that begins its transactions. `begins` is true until the first statement of a
    transaction, which runs the BEGIN as well. `used` is true after any statement since the last commit or
    rollback, so that there is something to end. Once the file has been replaced, no transaction begins, and
    none that writes counts as committed; `file` raises Unavailable.
    """

    begins = False
    used = False

    def __init__(self, file: SqliteFile, begin: str) -> None:
        super().__init__(file.connect, iter_chunk_size=64)
        self.file = file
        self.begin = begin

    async def commit(self) -> None:
        """Commit, unless no statement was run."""
        if self.used:
            await self._end(super().commit)
            if self.begin == BEGIN_WRITE:
                self.file.check()
        self.begins = False

    async def rollback(self) -> None:
        """Roll back, unless no statement was run; SQLAlchemy's pool calls this after every transaction."""
        await self._end(super().rollback)

    async def _end(self, end: Callable[[], Awaitable[None]]) -> None:
        self.begins = False
        if self.used:
            await end()
            self.used = False

    def cursor(self) -> "Cursor":  # type: ignore[override]
        """Return a cursor, which is opened in SQLite only when it is used."""
        return Cursor(self)


class Cursor:
    """Cursor interface that SQLAlchemy needs, with the complete result of one statement."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Row] = []
        self.description: Sequence[Any] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> "Cursor":
        """Return itself; nothing has to be opened."""
        return self

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> None:
        """Run a statement and fetch its rows."""
        await self._change("execute", statement, parameters)

    async def executemany(self, statement: str, parameters: Iterable[Iterable[Any]]) -> None:
        """Run a statement once for each set of parameters."""
        await self._change("executemany", statement, parameters)

    async def fetchall(self) -> list[Row]:
        """Return the rows."""
        return self._rows

    async def close(self) -> None:
        """Do nothing; the cursor was closed after the statement."""

    async def _change(self, how: str, statement: str, parameters: Any) -> None:
        self._connection.used = True
        work: Any = self._connection._execute  # noqa: SLF001 - its queue to the thread
        await work(self._run, how, statement, parameters)

    def _run(self, how: str, statement: str, parameters: Any) -> None:
        begins, self._connection.begins = self._connection.begins, False
        cursor = self._connection._conn.cursor()  # noqa: SLF001
        try:
            if begins:
                self._connection.file.check()
                cursor.execute(self._connection.begin)
            getattr(cursor, how)(statement, parameters)
            self._rows = cursor.fetchall() if cursor.description else []
            self.description, self.rowcount, self.lastrowid = (
                cursor.description,
                cursor.rowcount,
                cursor.lastrowid,
            )
        finally:
            cursor.close()
