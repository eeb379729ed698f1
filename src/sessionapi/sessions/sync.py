"""State synchronisation: each process polls the database for revocations and the key ring.

By default a process polls twice a second. Every poll reads again *all* sessions that were revoked one by one
within the window, and the marks that end many sessions with one row each. Applying them is idempotent. So a
transaction that commits late is never missed, as it could be with a cursor, and after a failure there is
nothing to catch up with.
"""

import asyncio
import time
from datetime import datetime, timedelta

import structlog

from sessionapi.clock import Clock
from sessionapi.errors import StartupError, Unavailable
from sessionapi.keys.rotation import Keys
from sessionapi.models import REVOCATION_WINDOW, StoredKey
from sessionapi.sessions.revocations import Revocations
from sessionapi.storage import Store

log = structlog.get_logger()

LARGEST_SKEW = timedelta(seconds=2)
"""Largest allowed difference between the clocks of a host and the database (design 4.4).

The revocation window includes 15 s for it.
"""
STALE = 5.0
"""Seconds since the last successful poll after which the process is not ready."""
LEAST_INTERVAL = 0.05
"""Minimum seconds between two polls, so that forged tokens cannot cause more than 20 reads a second."""


class StateSync:
    """Keeps the revocations and the key ring of this process in step with the database."""

    def __init__(
        self, store: Store, keys: Keys, revocations: Revocations, clock: Clock, interval: float
    ) -> None:
        self._store = store
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self.interval = interval
        self._flight: asyncio.Task[None] | None = None
        self._began = self._succeeded = float("-inf")
        self._problem: str | None = None

    async def sync(self) -> None:
        """Poll now; raises Unavailable if the database is unavailable."""
        await self.fresher_than(time.monotonic())

    async def fresher_than(self, moment: float) -> None:
        """Wait until a poll that began at or after `moment` (of `time.monotonic`) has succeeded.

        All callers share one poll, which continues if one of them is cancelled.
        """
        while self._succeeded < moment:
            if self._flight is None or self._flight.done():
                self._flight = asyncio.create_task(self._run())
            await asyncio.shield(self._flight)

    async def settle(self) -> None:
        """Wait for a poll that is under way."""
        if self._flight is not None:
            await asyncio.wait([self._flight])

    def check(self) -> None:
        """Raise Unavailable, with the reason, if this process is not in step with the database."""
        if time.monotonic() - self._succeeded > max(STALE, 4 * self.interval):
            raise Unavailable("This process has not been able to read recent revocations from the database.")
        if self._problem:
            raise Unavailable(self._problem)

    async def _run(self) -> None:
        await asyncio.sleep(self._began + LEAST_INTERVAL - time.monotonic())
        self._began = began = time.monotonic()
        began_at = self._clock()
        async with self._store.read() as tx:
            database_time = await tx.now()
            marks = await tx.marks.all()
            ended = await tx.sessions.revoked_since(began_at - REVOCATION_WINDOW, [mark.at for mark in marks])
            ring = await tx.signing_keys.all()
        self._revocations.take(ended, marks)
        problem = self._take(ring)  # even if the clock is off, because a dropped key must be refused
        self._note(self._skew(database_time, began_at) or problem)
        self._succeeded = began

    def _take(self, ring: list[StoredKey]) -> str | None:
        """Apply the key ring; return the error if our secret cannot decrypt it."""
        try:
            self._keys.take(ring)
        except StartupError as problem:
            return problem.detail
        return None

    def _skew(self, database_time: datetime | None, began_at: datetime) -> str | None:
        """Return an error if our clock is off by more than LARGEST_SKEW plus the time of the query."""
        if database_time is None or began_at - LARGEST_SKEW <= database_time <= self._clock() + LARGEST_SKEW:
            return None
        seconds = (began_at - database_time).total_seconds()
        return f"The clock of this host is {seconds:+.1f} s off that of the database. Synchronise both (NTP)."

    def _note(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            log.error("not ready", reason=problem)
        self._problem = problem
