"""Questions about the sessions of everybody, each answered in batches by an index."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.models import Session
from sessionapi.storage.marks import FIRST_KEY, SessionKey
from sessionapi.storage.sessions import hide_from_planner, living, session_of, started_before
from sessionapi.storage.tables import sessions


class AllSessionQueries:
    """The part of `Transaction` that reads and deletes sessions whoever they belong to."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all_living_sessions(
        self, now: datetime, limit: int, after: SessionKey = FIRST_KEY
    ) -> list[Session]:
        """Return everybody's living sessions in the order of the key, from behind one."""
        behind = sa.tuple_(sessions.c.user_id, sessions.c.id) > sa.tuple_(*map(sa.literal, after))
        statement = (
            sa.select(sessions)
            .where(behind, hide_from_planner(living(now)))
            .order_by(sessions.c.user_id, sessions.c.id)
            .limit(limit)
        )
        return [session_of(row) for row in await self._connection.execute(statement)]

    async def owners_of_living(
        self, now: datetime, limit: int, after: UUID, created_before: datetime | None = None
    ) -> list[UUID]:
        """Return who has living sessions, disabled users too, in the order of their ids, from behind one."""
        statement = (
            sa.select(sessions.c.user_id)
            .distinct()
            .where(sessions.c.user_id > after, hide_from_planner(living(now)), started_before(created_before))
            .order_by(sessions.c.user_id)
            .limit(limit)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def purge_sessions(self, ended_before: datetime, limit: int) -> list[UUID]:
        """Delete sessions that expired or were revoked before a moment, up to `limit` of each kind.

        Return whose they were, a user once for each.
        """
        owners: list[UUID] = []
        for column in (sessions.c.expires_at, sessions.c.revoked_at):
            chosen = (
                sa.select(sessions.c.user_id, sessions.c.id)
                .where(column < ended_before)
                .order_by(column)
                .limit(limit)
                .with_for_update(skip_locked=True)  # another purge deletes it, or a late refresh reads it
            )
            statement = sa.delete(sessions).where(sa.tuple_(sessions.c.user_id, sessions.c.id).in_(chosen))
            deleted = await self._connection.execute(statement.returning(sessions.c.user_id))
            owners += deleted.scalars()
        return owners
