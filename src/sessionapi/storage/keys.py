"""Questions about signing keys."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.model import StoredKey
from sessionapi.storage.tables import signing_keys


class KeyQueries:
    """The part of `Tx` that reads and writes `signing_keys`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def ping(self) -> None:
        """Ask the database whether it is there."""
        await self._connection.execute(sa.select(1))

    async def signing_keys(self) -> list[StoredKey]:
        """Return the whole ring, oldest first."""
        rows = await self._connection.execute(sa.select(signing_keys).order_by(signing_keys.c.id))
        return [
            StoredKey(row.id, row.algorithm, row.state, row.public_jwk, row.private_key, row.created_at)
            for row in rows
        ]

    async def insert_key(self, key: StoredKey, now: datetime) -> bool:
        """Insert a key; False if it is `active` and there is an active one: the unique index decides."""
        statement = sa.insert(signing_keys).values(
            id=key.id,
            algorithm=key.algorithm,
            state=key.state,
            public_jwk=dict(key.public_jwk),
            private_key=key.sealed_private_key,
            created_at=key.created_at,
            state_since=now,
        )
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True
