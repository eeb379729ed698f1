"""How long one transaction may take, from the wait for its connection to its end.

A server that is frozen closes nothing and answers nothing, and its driver would wait for it even to cancel
or to roll back. So the socket itself is closed when the time is over: whatever waits for it fails at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

LAST_LOOK = 0.05
"""Seconds for an answer that has come while this process itself was late."""


class _Deadline:
    """Ends a connection of the driver at a moment of the event loop's clock, unless it is over before."""

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
    """Take a connection of the pool for at most so many seconds; TimeoutError if it takes as long to get one.

    At their end the connection is closed, and whoever uses it gets the driver's error.
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
