"""Purge of unneeded rows: sessions that ended long enough ago, expired one-time tokens, old counters.

It works in batches, each a short transaction, so that requests do not wait for it. Several processes may do
it at once. A session past its idle timeout is kept until its absolute end, because an index on the idle
timeout would have to be updated by every refresh. The emptied row of a deleted user is deleted with the last
of its sessions.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from sessionapi.clock import Clock
from sessionapi.storage import Store

log = structlog.get_logger()

BATCH = 500


@dataclass(frozen=True, slots=True)
class Purged:
    """Numbers of deleted rows."""

    sessions: int
    users: int
    password_resets: int


@dataclass(slots=True)
class Purge:
    """Purges one store. Ended sessions are kept for `kept` before they are deleted."""

    store: Store
    clock: Clock
    kept: timedelta
    batch: int = BATCH

    async def run(self) -> Purged:
        """Delete everything that is due, and return the numbers."""
        now = self.clock()
        resets = await self.store.run(lambda tx: tx.password_resets.purge(now))
        while await self._purge_tries(now):
            pass
        sessions = users = 0
        while owners := await self._delete_batch(now):
            sessions += len(owners)
            # In a second transaction: when two purges each delete one of a user's last two sessions, neither
            # sees before its commit that the user has no session left.
            users += await self._purge_users(owners)
        if sessions:
            log.info("purged", sessions=sessions, users=users)
        return Purged(sessions, users, resets)

    async def _purge_tries(self, now: datetime) -> int:
        return await self.store.run(lambda tx: tx.login_attempts.purge(now, self.batch))

    async def _purge_users(self, owners: list[UUID]) -> int:
        return await self.store.run(lambda tx: tx.users.purge(owners))

    async def _delete_batch(self, now: datetime) -> list[UUID]:
        return await self.store.run(lambda tx: tx.all_sessions.purge(now - self.kept, self.batch))
