"""Questions about the audit log."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.model import Event
from sessionapi.storage.tables import events


class EventQueries:
    """The part of `Tx` that writes `events`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def record(self, event: Event) -> None:
        """Write one event, in the transaction of what it tells of."""
        await self._connection.execute(
            sa.insert(events).values(
                id=event.id,
                at=event.at,
                kind=event.kind,
                user_id=event.user_id,
                session_id=event.session_id,
                ip=event.ip,
                details=dict(event.details),
            )
        )
