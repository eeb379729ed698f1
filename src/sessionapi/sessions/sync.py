"""How processes on one database agree: each reads, twice a second, what was revoked and the key ring.

Every poll reads *all* that was revoked one by one within the window again, and the marks that end many
sessions with one row each, and takes them over idempotently. So a transaction that commits late is never
missed, as it would be behind a cursor, and nothing has to be caught up with after a failure.
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
"""How far the clocks of a host and the database may be apart (design 4.4): the window has 15 s for it."""
STALE = 5.0
"""Seconds without a successful poll after which the process is not ready."""
LEAST_INTERVAL = 0.05
"""Seconds between two polls, whoever asks for them: forged tokens can't make more than 20 reads a second."""


class StateSync:
    """Keeps the revocations and the key ring of this process as new as the database."""

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
        """Read everything now; Unavailable if the database is away."""
        await self.fresher_than(time.monotonic())

    async def fresher_than(self, moment: float) -> None:
        """Return when a poll that began at or after a moment (of `time.monotonic`) has succeeded.

        All who wait share one poll, and it goes on if one of them gives up.
        """
        while self._succeeded < moment:
            if self._flight is None or self._flight.done():
                self._flight = asyncio.create_task(self._run())
            await asyncio.shield(self._flight)

    async def settle(self) -> None:
        """Let a poll that is under way come to its end."""
        if self._flight is not None:
            await asyncio.wait([self._flight])

    def check(self) -> None:
        """Raise Unavailable, saying why, unless this process knows what the others know."""
        if time.monotonic() - self._succeeded > max(STALE, 4 * self.interval):
            raise Unavailable("This process has not learnt for a while what was revoked elsewhere.")
        if self._problem:
            raise Unavailable(self._problem)

    async def _run(self) -> None:
        await asyncio.sleep(self._began + LEAST_INTERVAL - time.monotonic())
        self._began = began = time.monotonic()
        asked_at = self._clock()
        async with self._store.read() as tx:
            theirs = await tx.now()
            marks = await tx.revocation_marks()
            ended = await tx.revoked_since(asked_at - REVOCATION_WINDOW, [mark.at for mark in marks])
            ring = await tx.signing_keys()
        self._revocations.take(ended, marks)
        problem = self._take(ring)  # also with a clock that is off: a dropped key must be known
        self._note(self._skew(theirs, asked_at) or problem)
        self._succeeded = began

    def _take(self, ring: list[StoredKey]) -> str | None:
        """Take over the ring; one that our secret doesn't open is left, and makes the process unready."""
        try:
            self._keys.take(ring)
        except StartupError as problem:
            return problem.detail
        return None

    def _skew(self, theirs: datetime | None, asked_at: datetime) -> str | None:
        """Say how far our clock is off, counting nothing that the way to the database may explain."""
        if theirs is None or asked_at - LARGEST_SKEW <= theirs <= self._clock() + LARGEST_SKEW:
            return None
        seconds = (asked_at - theirs).total_seconds()
        return f"The clock of this host is {seconds:+.1f} s off the database's. Set it right (NTP)."

    def _note(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            log.error("not ready", reason=problem)
        self._problem = problem
