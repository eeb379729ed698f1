"""Deleting what nobody needs any more: sessions that ended long enough ago, dead one-time tokens, old counts.

In batches, each a short transaction of its own, so that nobody waits for it. Several processes may do it at
once. A session past its idle end waits for its absolute one: there is no index on the idle end, for every
refresh would have to write it.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from sessionapi.clock import Clock
from sessionapi.storage import Store, Tx

log = structlog.get_logger()

BATCH = 500


class Purge:
    """Purges one store; ended rows are kept for `kept` first."""

    def __init__(self, store: Store, clock: Clock, kept: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._kept = kept

    async def run(self) -> int:
        """Delete all that is due, and return how many sessions there were."""
        now = self._clock()
        async with self._store.begin() as tx:
            await tx.purge_password_resets(now)
        await self._all(lambda tx: tx.purge_tries(now, BATCH))
        total = await self._all(lambda tx: tx.purge_sessions(now - self._kept, BATCH))
        if total:
            log.info("purged", sessions=total)
        return total

    async def _all(self, purge: Callable[[Tx], Awaitable[int]]) -> int:
        total = 0
        while True:
            async with self._store.begin() as tx:
                deleted = await purge(tx)
            total += deleted
            if deleted == 0:
                return total
