"""Queries on service tokens."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sessionapi.models import ServiceToken
from sessionapi.storage.queries import Queries, columns_of, row_of
from sessionapi.storage.tables import service_tokens

_COLUMNS = columns_of(ServiceToken, service_tokens)


class ServiceTokenQueries(Queries):
    """Service tokens, in one transaction."""

    async def insert(self, token: ServiceToken) -> bool:
        """Insert a token; False if an active one already has its name. The unique index decides."""
        statement = sa.insert(service_tokens).values(row_of(token))
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True

    async def all(self) -> list[ServiceToken]:
        """Return all tokens, oldest first."""
        rows = await self._connection.execute(sa.select(*_COLUMNS).order_by(service_tokens.c.id))
        return [ServiceToken(*row) for row in rows]

    async def by_digest(self, digest: bytes) -> ServiceToken | None:
        """Return the active token with this digest, or None."""
        statement = sa.select(*_COLUMNS).where(
            service_tokens.c.digest == digest, service_tokens.c.revoked_at.is_(None)
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else ServiceToken(*row)

    async def revoke(self, name: str, now: datetime) -> bool:
        """Revoke the active token of a name; False if not found."""
        statement = (
            sa.update(service_tokens)
            .where(service_tokens.c.name == name, service_tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        return (await self._connection.execute(statement)).rowcount == 1
