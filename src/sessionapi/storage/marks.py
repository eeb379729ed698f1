"""Queries on revocation marks, each of which ends many sessions at once.

A mark ends a session as soon as it is committed: `storage.sessions.active` and its columns `SESSION`
compare the session's id with the greatest mark in the statement that reads or changes it. The rows of the
sessions are updated later, in batches.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sessionapi.models import RevocationMark, SessionKey
from sessionapi.storage.queries import Queries, columns_of, row_of
from sessionapi.storage.sessions import hide_from_planner, unmarked_and_unexpired
from sessionapi.storage.tables import evaluated_once, revocation_marks, session_data, sessions

FIRST_KEY: SessionKey = (UUID(int=0), UUID(int=0))

_COLUMNS = columns_of(RevocationMark, revocation_marks)


class MarkQueries(Queries):
    """Revocation marks, in one transaction."""

    async def all(self) -> list[RevocationMark]:
        """Return all marks, of which there are a handful, the one that ends the most sessions first."""
        statement = sa.select(*_COLUMNS).order_by(revocation_marks.c.up_to.desc())
        return [RevocationMark(*row) for row in await self._connection.execute(statement)]

    async def newest_session_id(self) -> UUID | None:
        """Return the greatest id of all sessions.

        This reads the whole primary key, and is meant for the command line.
        """
        statement = sa.select(sessions.c.id).order_by(sessions.c.id.desc()).limit(1)
        return (await self._connection.execute(statement)).scalar()

    async def insert(self, mark: RevocationMark) -> None:
        """Insert a mark, unless another process has inserted the same one."""
        insert = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        await self._connection.execute(insert(revocation_marks).values(row_of(mark)).on_conflict_do_nothing())

    async def end_sessions(
        self, mark: RevocationMark, now: datetime, limit: int, after: SessionKey = FIRST_KEY
    ) -> list[SessionKey]:
        """Record in up to `limit` rows that the mark has ended them, and delete their data.

        Rows are taken in the order of the key, starting after a given key. Return the keys of the sessions.
        """
        chosen = (
            sa.select(sessions.c.user_id, sessions.c.id)
            .where(
                sa.tuple_(sessions.c.user_id, sessions.c.id) > sa.tuple_(*map(sa.literal, after)),
                sessions.c.id <= mark.up_to,
                hide_from_planner(unmarked_and_unexpired(now)),
            )
            .order_by(sessions.c.user_id, sessions.c.id)
            .limit(limit)
            .with_for_update()
        )
        ended = await self._connection.execute(
            sa.update(sessions)
            .where(sa.tuple_(sessions.c.user_id, sessions.c.id).in_(evaluated_once(chosen)))
            .values(revoked_at=mark.at, revoke_reason=mark.reason)
            .returning(sessions.c.user_id, sessions.c.id)
        )
        keys = sorted((row[0], row[1]) for row in ended)
        if keys:
            key = sa.tuple_(session_data.c.user_id, session_data.c.session_id)
            await self._connection.execute(sa.delete(session_data).where(key.in_(keys)))
        return keys

    async def count_sessions(self, mark: RevocationMark) -> int:
        """Return the number of sessions whose rows record that the mark has ended them."""
        counted = sa.select(sa.func.count()).where(sessions.c.revoked_at == mark.at)
        return int((await self._connection.execute(counted)).scalar_one())

    async def finish(self, up_to: UUID, now: datetime) -> None:
        """Record that the rows of a mark, and so those of all smaller ones, are written."""
        statement = sa.update(revocation_marks).where(
            revocation_marks.c.up_to <= up_to, revocation_marks.c.finished_at.is_(None)
        )
        await self._connection.execute(statement.values(finished_at=now))

    async def delete(self, marks: Sequence[RevocationMark]) -> None:
        """Delete marks that a greater one has made superfluous."""
        ids = [mark.up_to for mark in marks]
        await self._connection.execute(sa.delete(revocation_marks).where(revocation_marks.c.up_to.in_(ids)))
