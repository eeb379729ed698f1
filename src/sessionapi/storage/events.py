"""Queries on the audit log."""

from uuid import UUID

import sqlalchemy as sa

from sessionapi.models import Event
from sessionapi.storage.queries import Queries, columns_of, row_of
from sessionapi.storage.tables import events

_COLUMNS = columns_of(Event, events)


class EventQueries(Queries):
    """The audit log, in one transaction."""

    async def add(self, *added: Event) -> None:
        """Record events, in the same transaction as the changes that they describe."""
        if added:
            await self._connection.execute(_INSERT, [row_of(event) for event in added])

    async def page(self, limit: int, before: UUID | None = None, user_id: UUID | None = None) -> list[Event]:
        """Return events, newest first, of all users or of one."""
        statement = sa.select(*_COLUMNS).order_by(events.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(events.c.id < before)
        if user_id is not None:
            statement = statement.where(events.c.user_id == user_id)
        return [Event(*row) for row in await self._connection.execute(statement)]


_INSERT = sa.insert(events)
