"""Deadline of a transaction, from the wait for its connection to its end.

A frozen server closes nothing and sends nothing, and the driver would wait for it even to cancel or to roll
back. So at the deadline the socket itself is closed, and everything that waits for it fails at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

LAST_LOOK = 0.05
"""Grace, in seconds, for a response that arrived while our event loop was blocked."""


class _Deadline:
    """Timer that terminates a driver connection at a given time of the event loop, unless stopped before."""

    def __init__(self, driver: Any, until: float) -> None:
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_at(until, self._look_again)

    def over(self) -> None:
        self._timer.cancel()

    def _look_again(self) -> None:
        self._timer = self._loop.call_later(LAST_LOOK, self._driver.terminate)


@asynccontextmanager
async def connected(engine: AsyncEngine, seconds: float) -> AsyncIterator[AsyncConnection]:
    """Take a pooled connection for at most `seconds`; TimeoutError if it takes that long to get one.

    At the deadline the connection is closed, and the statement that is using it fails with the driver's
    error.
    """
    until = asyncio.get_running_loop().time() + seconds
    connection = engine.connect()
    async with asyncio.timeout_at(until):
        await connection.start()
    driver: Any = connection.sync_connection and connection.sync_connection.connection.driver_connection
    deadline = _Deadline(driver, until)
    try:
        yield connection
    finally:
        await asyncio.shield(asyncio.create_task(connection.close()))
        deadline.over()
