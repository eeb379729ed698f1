"""The store: `begin()` for a transaction that writes, `read()` for one that only reads.

Whatever the driver raises leaves here as an error of the tree. A refusal is raised by the operation after
its transaction has ended, so that it never rolls back the change that it reports.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.errors import Unavailable
from sessionapi.storage import engines
from sessionapi.storage.all_sessions import AllSessionQueries
from sessionapi.storage.copies import CopyQueries
from sessionapi.storage.events import EventQueries
from sessionapi.storage.keys import KeyQueries
from sessionapi.storage.service_tokens import ServiceTokenQueries
from sessionapi.storage.sessions import SessionQueries
from sessionapi.storage.tries import TryQueries
from sessionapi.storage.users import UserQueries


class Tx(
    UserQueries,
    SessionQueries,
    AllSessionQueries,
    KeyQueries,
    ServiceTokenQueries,
    EventQueries,
    TryQueries,
    CopyQueries,
):
    """One transaction: a short method for each question, records out."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection)
        self.followers: list[Callable[[], None]] = []

    def after_commit(self, follow: Callable[[], None]) -> None:
        """Call this once the transaction is on the disk, and never if it isn't."""
        self.followers.append(follow)


class Store:
    """Where the rows are; `url` is a plain `sqlite:///` or `postgresql://` address."""

    def __init__(self, url: str) -> None:
        self._writer, self._reader = engines.create(url)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """Open a transaction that writes; it commits at the end, durably, and rolls back on an error."""
        with _translated():
            async with self._writer.begin() as connection:
                tx = Tx(connection)
                yield tx
        for follow in tx.followers:
            follow()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """Open a transaction that reads one snapshot."""
        with _translated():
            async with self._reader.connect() as connection:
                yield Tx(connection)

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()


class _translated:  # noqa: N801 - a context manager reads as a verb
    """Turn what a driver says of the database's state into `Unavailable`; a defect of ours stays one."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, PoolTimeout | InterfaceError) or (
            isinstance(problem, DBAPIError) and _is_of_the_database(problem)
        ):
            refusal = Unavailable()
            refusal.cause = str(problem.__cause__ or problem).splitlines()[0]
            raise refusal from problem


def _is_of_the_database(problem: DBAPIError) -> bool:
    """SQLite's `locked`, `full`, `I/O error`; PostgreSQL's connection errors: all operational."""
    return problem.connection_invalidated or type(problem).__name__ == "OperationalError"
