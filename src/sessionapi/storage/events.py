"""Queries on the audit log."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.models import Event
from sessionapi.storage.tables import events, row_of


class EventQueries:
    """Part of `Transaction` that reads and writes `events`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def record(self, *told: Event) -> None:
        """Record events, in the same transaction as the changes that they describe."""
        rows = [{**row_of(event), "details": dict(event.details)} for event in told]
        if rows:
            await self._connection.execute(_INSERT, rows)

    async def events(
        self, limit: int, before: UUID | None = None, user_id: UUID | None = None
    ) -> list[Event]:
        """Return events, newest first, of all users or of one."""
        statement = sa.select(events).order_by(events.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(events.c.id < before)
        if user_id is not None:
            statement = statement.where(events.c.user_id == user_id)
        return [Event(*row) for row in await self._connection.execute(statement)]


_INSERT = sa.insert(events)
