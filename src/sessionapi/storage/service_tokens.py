"""Queries on service tokens."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.models import ServiceToken
from sessionapi.storage.tables import service_tokens


class ServiceTokenQueries:
    """Part of `Transaction` that reads and writes `service_tokens`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert_service_token(self, token: ServiceToken) -> bool:
        """Insert a token; False if an active one already has its name. The unique index decides."""
        statement = sa.insert(service_tokens).values(
            id=token.id, name=token.name, digest=token.digest, created_at=token.created_at
        )
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True

    async def service_tokens(self) -> list[ServiceToken]:
        """Return all tokens, oldest first."""
        rows = await self._connection.execute(sa.select(service_tokens).order_by(service_tokens.c.id))
        return [ServiceToken(*row) for row in rows]

    async def service_token(self, digest: bytes) -> ServiceToken | None:
        """Return the active token with this digest, or None."""
        statement = sa.select(service_tokens).where(
            service_tokens.c.digest == digest, service_tokens.c.revoked_at.is_(None)
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else ServiceToken(*row)

    async def revoke_service_token(self, name: str, now: datetime) -> bool:
        """Revoke the active token of a name; False if not found."""
        statement = (
            sa.update(service_tokens)
            .where(service_tokens.c.name == name, service_tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        return (await self._connection.execute(statement)).rowcount == 1
