"""PostgreSQL connections, and the timeouts that keep requests from hanging while the server is unreachable.

Reads are single statements without BEGIN and ROLLBACK. Each sees what is committed, as in a READ COMMITTED
transaction, for a third of the round trips. Behind a PgBouncer that pools transactions, a statement prepared
in one transaction may be missing on the connection of the next one. There everything is a transaction, and
prepared statements have no names (docs/postgresql.md).
"""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import sqlalchemy as sa
from pydantic_core import from_json
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from sessionapi.errors import Unavailable
from sessionapi.storage import database_url
from sessionapi.storage.database_url import Options

CLOSE_SECONDS = 1
IDLE_IN_TRANSACTION = 10
"""Seconds beyond `timeout` after which the server ends the transaction of a halted process."""
GONE = frozenset({"57P01", "57P02", "57P03", "25006"})
"""SQLSTATEs of a server that is stopping, starting, or has become a standby; its connections are useless."""

REFUSALS = (
    OSError,
    UnicodeError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Errors of a new connection attempt.

UnicodeError means that the URL has a host or a name that cannot be encoded, InternalClientError that the host
does not match `target_session_attrs`.
"""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """Connection that closes without waiting indefinitely, because a frozen server would never respond."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the driver's own
        """Close gracefully if there is time; SQLAlchemy passes a timeout when it discards a connection."""
        if timeout is not None:
            self.terminate()
            return
        try:
            await super().close(timeout=CLOSE_SECONDS)
        except TimeoutError:
            self.terminate()


def create(url: str, options: Options) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads), which share a pool."""
    arguments: dict[str, Any] = {"async_creator_fn": Hosts(url, options).connect}
    if options.pgbouncer:
        arguments |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args=arguments,
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.timeout * 0.9,
        hide_parameters=True,
        json_deserializer=from_json,
    )
    sa.event.listen(engine.sync_engine, "handle_error", _note_gone)
    sa.event.listen(engine.sync_engine, "checkout", _refuse_closed)
    if options.pgbouncer:
        return engine, engine
    return engine, engine.execution_options(isolation_level="AUTOCOMMIT")


class Hosts:
    """Hosts of a database URL. The last one that worked is tried first.

    Each host has a share of the time, so that a frozen one does not use up the time of the others.
    """

    def __init__(self, url: str, options: Options) -> None:
        self._urls = database_url.hosts(url)
        self._share = options.timeout * 0.8 / min(len(self._urls), 3)
        self._arguments: dict[str, Any] = {"connection_class": Connection}
        if options.pgbouncer:
            self._arguments["statement_cache_size"] = 0
        else:
            self._arguments["server_settings"] = _server_settings(url, options)

    async def connect(self, *_: object, **__: object) -> asyncpg.Connection:
        """Return a new connection; Unavailable, with the error of the last host, if none accepts one."""
        last_error: Exception | None = None
        for url in list(self._urls):
            try:
                async with asyncio.timeout(self._share):
                    connection = await asyncpg.connect(url, **self._arguments)
            except REFUSALS as problem:
                last_error = problem
            else:
                self._urls.sort(key=lambda each: each != url)
                return connection
        refusal = Unavailable()
        if isinstance(last_error, UnicodeError):  # its text may show a part of the password
            refusal.cause = "the URL has a host or a name that cannot be encoded"
        else:
            refusal.cause = (str(last_error) or type(last_error).__name__).splitlines()[0]
        if "startup parameter" in refusal.cause:
            refusal.cause += "; if this is a PgBouncer, set SESSIONAPI_PGBOUNCER=on"
        raise refusal from last_error


def _server_settings(url: str, options: Options) -> dict[str, str]:
    """Return the server settings of a new connection, which a PgBouncer would refuse.

    The server cancels a statement that waits for a lock shortly before our deadline.
    """
    own = {
        "statement_timeout": str(int(options.timeout * 800)),
        "idle_in_transaction_session_timeout": str(int((options.timeout + IDLE_IN_TRANSACTION) * 1000)),
        "default_transaction_isolation": "read committed",
    }
    named = "application_name" in parse_qs(urlsplit(url).query)
    return own if named else {**own, "application_name": "sessionapi"}


def _note_gone(context: ExceptionContext) -> None:
    """Discard all connections to a server that is shutting down; a closed one is detected without this."""
    if getattr(context.original_exception, "sqlstate", None) in GONE:
        context.is_disconnect = True


def _refuse_closed(connection: Any, _entry: ConnectionPoolEntry, _proxy: object) -> None:
    """Skip a pooled connection that has been closed in the meantime; this needs no query."""
    if connection.driver_connection.is_closed():
        raise sa.exc.DisconnectionError
