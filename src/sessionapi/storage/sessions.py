"""Questions about sessions."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.model import Session
from sessionapi.storage.tables import sessions


class SessionQueries:
    """The part of `Tx` that reads and writes `sessions`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert_session(self, session: Session) -> None:
        """Insert a new session."""
        await self._connection.execute(
            sa.insert(sessions).values({**asdict(session), "amr": list(session.amr)})
        )

    async def session(self, user_id: UUID, session_id: UUID) -> Session | None:
        """Return a session, ended ones too."""
        statement = sa.select(sessions).where(sessions.c.user_id == user_id, sessions.c.id == session_id)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _session(row)


def _session(row: Mapping[Any, Any]) -> Session:
    return Session(**{**row, "amr": tuple(row["amr"])})
