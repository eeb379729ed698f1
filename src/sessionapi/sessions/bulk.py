"""Operations of the command line on the sessions of all users: list and end them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sessionapi.clock import Clock
from sessionapi.errors import NotFound
from sessionapi.models import Page, RevokeReason, Session, SessionKey
from sessionapi.sessions.actors import OPERATOR
from sessionapi.sessions.lifecycle import Sessions
from sessionapi.sessions.marks import Marks, Progress
from sessionapi.storage import Store
from sessionapi.storage.marks import FIRST_KEY

BATCH = 500
"""Number of users read at once."""


@dataclass(slots=True)
class AllSessions:
    """All sessions in one store."""

    store: Store
    sessions: Sessions
    marks: Marks
    clock: Clock
    batch: int = BATCH

    async def page(self, limit: int, after: SessionKey | None = None) -> Page[Session, SessionKey]:
        """Return one page of active sessions, ordered by user, beginning after the key `after`."""
        now = self.clock()
        async with self.store.read() as tx:
            rows = await tx.all_sessions.active(now, limit + 1, after or FIRST_KEY)
        return Page.of(rows, limit, lambda session: (session.user_id, session.id))

    async def revoke(
        self,
        reason: RevokeReason,
        older_than: timedelta | None = None,
        progress: Progress | None = None,
    ) -> int:
        """End all active sessions, or only those older than `older_than`; return how many there were.

        One mark ends them in every process, and then their rows are written in batches. If the command is
        interrupted, the sessions are still ended, and a running server writes the remaining rows.
        """
        now = self.clock()
        if older_than is None:
            await self.marks.end_all(reason)
            return await self.marks.finish(progress)
        await self.marks.end_older(now - older_than, reason)
        ended = await self.marks.finish(progress)
        return ended + await self._revoke_rest(now, now - older_than, reason)

    async def _revoke_rest(self, now: datetime, created_before: datetime, reason: RevokeReason) -> int:
        """End, one by one, the sessions that began before a given time although their ids are later.

        There are few of them, because the id of a session is made just after the time for `created_at` is
        taken.
        """
        ended, owners = 0, await self._owners(now, created_before)
        while owners:
            for user_id in owners:
                ended += await self._revoke_of(user_id, created_before, reason)
            owners = await self._owners(now, created_before, owners[-1])
        return ended

    async def _revoke_of(self, user_id: UUID, created_before: datetime, reason: RevokeReason) -> int:
        try:
            return await self.sessions.revoke_older(user_id, created_before, reason, OPERATOR)
        except NotFound:  # the user was deleted in the meantime, with all sessions
            return 0

    async def _owners(
        self, now: datetime, created_before: datetime, after: UUID = FIRST_KEY[0]
    ) -> list[UUID]:
        async with self.store.read() as tx:
            return await tx.all_sessions.owners_of_active(now, self.batch, after, created_before)
