"""Queries on the sessions of all users, in batches that use an index."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.models import Session
from sessionapi.storage.marks import FIRST_KEY, SessionKey
from sessionapi.storage.sessions import hide_from_planner, living, session_of, started_before
from sessionapi.storage.tables import evaluated_once, sessions


class AllSessionQueries:
    """Part of `Transaction` that reads and deletes sessions of all users."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all_living_sessions(
        self, now: datetime, limit: int, after: SessionKey = FIRST_KEY
    ) -> list[Session]:
        """Return the active sessions of all users in the order of the key, starting after a given key."""
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
        """Return the users with active sessions, even disabled ones, ordered by id, starting after an id."""
        statement = (
            sa.select(sessions.c.user_id)
            .distinct()
            .where(sessions.c.user_id > after, hide_from_planner(living(now)), started_before(created_before))
            .order_by(sessions.c.user_id)
            .limit(limit)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def purge_sessions(self, ended_before: datetime, limit: int) -> list[UUID]:
        """Delete sessions that expired or were revoked before a given time, up to `limit` of each kind.

        Return the user of each deleted session.
        """
        owners: list[UUID] = []
        for column in (sessions.c.expires_at, sessions.c.revoked_at):
            chosen = (
                sa.select(sessions.c.user_id, sessions.c.id)
                .where(column < ended_before)
                .order_by(column)
                .limit(limit)
                .with_for_update(skip_locked=True)  # in use by another purge or by a late refresh
            )
            statement = sa.delete(sessions).where(
                sa.tuple_(sessions.c.user_id, sessions.c.id).in_(evaluated_once(chosen))
            )
            deleted = await self._connection.execute(statement.returning(sessions.c.user_id))
            owners += deleted.scalars()
        return owners
