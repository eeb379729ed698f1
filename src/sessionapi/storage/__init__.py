"""The store: `run()` for a transaction that writes, `read()` for one that only reads.

Driver errors are translated into errors of our tree. An error that reports a change, such as the end of a
session after the reuse of a refresh token, is raised after the commit, so that it does not roll the change
back.

All transactions lock in this order: rows of `users` by id, then counters of wrong passwords by key, then rows
of `sessions` by key, then everything else.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sessionapi.errors import Unavailable
from sessionapi.storage import database_url, engines
from sessionapi.storage.bulk_sessions import AllSessionQueries
from sessionapi.storage.circuit_breaker import CircuitBreaker
from sessionapi.storage.database_url import Options
from sessionapi.storage.deadline import connected
from sessionapi.storage.events import EventQueries
from sessionapi.storage.login_attempts import LoginAttemptQueries
from sessionapi.storage.marks import MarkQueries
from sessionapi.storage.password_resets import PasswordResetQueries
from sessionapi.storage.service_tokens import ServiceTokenQueries
from sessionapi.storage.session_batches import BatchQueries
from sessionapi.storage.sessions import SessionQueries
from sessionapi.storage.signing_keys import SigningKeyQueries
from sessionapi.storage.users import UserQueries

ATTEMPTS = 4
"""Attempts at a transaction that conflicts with others. Each time it fails, another one has made progress."""
T = TypeVar("T")


class Transaction:
    """One transaction. Each attribute holds the queries on one kind of row, which return records."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.users = UserQueries(connection)
        self.password_resets = PasswordResetQueries(connection)
        self.sessions = SessionQueries(connection)
        self.session_batches = BatchQueries(connection)
        self.all_sessions = AllSessionQueries(connection)
        self.marks = MarkQueries(connection)
        self.signing_keys = SigningKeyQueries(connection)
        self.service_tokens = ServiceTokenQueries(connection)
        self.events = EventQueries(connection)
        self.login_attempts = LoginAttemptQueries(connection)
        self._on_commit: list[Callable[[], None]] = []

    def on_commit(self, hook: Callable[[], None]) -> None:
        """Register a function to call after the commit. After a rollback it is not called."""
        self._on_commit.append(hook)

    def committed(self) -> None:
        """Call the functions that `on_commit` registered."""
        for hook in self._on_commit:
            hook()

    async def now(self) -> datetime | None:
        """Return the time of the database, or None for SQLite, which uses the clock of our host."""
        if self.connection.dialect.name == "sqlite":
            await self.connection.execute(sa.select(1))
            return None
        moment: datetime = (await self.connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
        return moment

    async def commit_asynchronously(self) -> None:
        """Do not wait for PostgreSQL's disk at the commit; a crash may lose what this transaction changes."""
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(_COMMIT_ASYNCHRONOUSLY)


_COMMIT_ASYNCHRONOUSLY = sa.text("SET LOCAL synchronous_commit = off")
_SNAPSHOT = sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


class Store:
    """Store behind a plain `sqlite:///` or `postgresql://` URL."""

    def __init__(self, url: str, options: Options | None = None) -> None:
        options = options or Options()
        self._writer, self._reader = engines.create(url, options)
        self._seconds = None if database_url.is_sqlite(url) else options.timeout
        self._outage = CircuitBreaker()

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction that writes, and return its result.

        After a deadlock or a serialization failure it is retried. So `work` must not have effects outside its
        transaction, except through `Transaction.on_commit`.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._attempt(work)
            except Unavailable as problem:
                if not problem.contended:
                    raise
        return await self._attempt(work)

    async def _attempt(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self.begin() as tx:
            return await work(tx)

    @asynccontextmanager
    async def begin(self, *, deadline: bool = True) -> AsyncIterator[Transaction]:
        """Open a transaction that writes. It commits durably at the end, and rolls back on an error.

        It is not retried, so operations use `run`. Without the deadline, the server still limits each
        statement and the time between two.
        """
        connecting = self._connected(self._writer) if deadline else self._writer.connect()
        with self._outage.watched() as watch:
            async with connecting as connection, connection.begin():
                tx = Transaction(connection)
                yield tx
                watch.commits = True
        tx.committed()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Open a transaction that only reads. On PostgreSQL each statement has a separate snapshot."""
        with self._outage.watched():
            async with self._connected(self._reader) as connection:
                yield Transaction(connection)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Open a long transaction that reads everything from a single snapshot."""
        engine = self._reader if self._seconds is None else self._writer
        with self._outage.watched():
            async with engine.connect() as connection, connection.begin():
                if self._seconds is not None:
                    await connection.execute(_SNAPSHOT)
                yield Transaction(connection)

    def ensure_closed(self) -> None:
        """Fail fast while the circuit is open, so that a caller does not join a batch first."""
        self._outage.refuse()

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()

    def _connected(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a pooled connection. SQLite has a separate timeout (`busy_timeout`)."""
        return engine.connect() if self._seconds is None else connected(engine, self._seconds)
