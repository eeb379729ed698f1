"""The sessions of everybody, as the command line lists and ends them.

They end by the very operations that end those of one user.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sessionapi.clock import Clock
from sessionapi.model import Client, RevokeReason, Session
from sessionapi.sessions import Sessions
from sessionapi.storage import Store
from sessionapi.storage.all_sessions import FIRST_KEY, SessionKey

BATCH = 500
"""Users who are read at once."""


class AllSessions:
    """All sessions in one store."""

    def __init__(self, store: Store, sessions: Sessions, clock: Clock, batch: int = BATCH) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._batch = batch

    async def page(
        self, limit: int, after: SessionKey | None = None
    ) -> tuple[list[Session], SessionKey | None]:
        """Return living sessions, user by user, and the key to go on `after` if there are more."""
        now = self._clock()
        async with self._store.read() as tx:
            found = await tx.all_living_sessions(now, limit + 1, after or FIRST_KEY)
        last = found[:limit][-1:]
        return found[:limit], (last[0].user_id, last[0].id) if len(found) > limit else None

    async def revoke(self, reason: RevokeReason, client: Client, older_than: timedelta | None = None) -> int:
        """End everybody's living sessions, or the older ones; return how many there were.

        User by user, each in a transaction of its own, so that nobody waits for all of it: if it is
        interrupted, those that were ended stay so, and it can be done again.
        """
        now = self._clock()
        before = None if older_than is None else now - older_than
        ended, owners = 0, await self._owners(now, before)
        while owners:
            for user_id in owners:
                if before is None:
                    ended += await self._sessions.revoke_all(user_id, reason, client)
                else:
                    ended += await self._sessions.revoke_older(user_id, before, reason, client)
            owners = await self._owners(now, before, owners[-1])
        return ended

    async def _owners(
        self, now: datetime, created_before: datetime | None, after: UUID = FIRST_KEY[0]
    ) -> list[UUID]:
        async with self._store.read() as tx:
            return await tx.owners_of_living(now, self._batch, after, created_before)
