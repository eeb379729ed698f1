"""Questions about the audit log."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.model import Event
from sessionapi.storage.tables import events


class EventQueries:
    """The part of `Tx` that reads and writes `events`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def record(self, *told: Event) -> None:
        """Write events, in the transaction of what they tell of."""
        if told:
            await self._connection.execute(_INSERT, [_row(event) for event in told])

    async def events(
        self, limit: int, before: UUID | None = None, user_id: UUID | None = None
    ) -> list[Event]:
        """Return events, the newest first, of everybody or of one user."""
        statement = sa.select(events).order_by(events.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(events.c.id < before)
        if user_id is not None:
            statement = statement.where(events.c.user_id == user_id)
        return [Event(*row) for row in await self._connection.execute(statement)]


def _row(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "user_id": event.user_id,
        "session_id": event.session_id,
        "ip": event.ip,
        "details": dict(event.details),
    }


_INSERT = sa.insert(events)
