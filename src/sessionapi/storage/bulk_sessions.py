"""Queries on the sessions of all users, in batches that use an index."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from sessionapi.models import Session, SessionKey
from sessionapi.storage.marks import FIRST_KEY
from sessionapi.storage.queries import Queries, columns_of
from sessionapi.storage.sessions import active, hide_from_planner, started_before
from sessionapi.storage.tables import evaluated_once, sessions


class AllSessionQueries(Queries):
    """The sessions of all users, in one transaction."""

    async def active(self, now: datetime, limit: int, after: SessionKey = FIRST_KEY) -> list[Session]:
        """Return the active sessions of all users in the order of the key, starting after a given key."""
        behind = sa.tuple_(sessions.c.user_id, sessions.c.id) > sa.tuple_(*map(sa.literal, after))
        statement = (
            sa.select(*columns_of(Session, sessions))
            .where(behind, hide_from_planner(active(now)))
            .order_by(sessions.c.user_id, sessions.c.id)
            .limit(limit)
        )
        return [Session(*row) for row in await self._connection.execute(statement)]

    async def owners_of_active(
        self, now: datetime, limit: int, after: UUID, created_before: datetime | None = None
    ) -> list[UUID]:
        """Return the users with active sessions, even disabled ones, ordered by id, starting after an id."""
        statement = (
            sa.select(sessions.c.user_id)
            .distinct()
            .where(sessions.c.user_id > after, hide_from_planner(active(now)), started_before(created_before))
            .order_by(sessions.c.user_id)
            .limit(limit)
        )
        return list((await self._connection.execute(statement)).scalars())

    async def purge(self, ended_before: datetime, limit: int) -> list[UUID]:
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
