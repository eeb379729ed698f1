"""Queries on signing keys."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sessionapi.models import StoredKey
from sessionapi.storage.queries import Queries, columns_of, row_of
from sessionapi.storage.tables import signing_keys

_COLUMNS = columns_of(StoredKey, signing_keys)


class SigningKeyQueries(Queries):
    """Signing keys, in one transaction."""

    async def all(self, *, lock: bool = False) -> list[StoredKey]:
        """Return the whole ring, oldest first; `lock` it if it is about to be changed."""
        statement = sa.select(*_COLUMNS).order_by(signing_keys.c.id)
        rows = await self._connection.execute(statement.with_for_update() if lock else statement)
        return [StoredKey(*row) for row in rows]

    async def insert(self, key: StoredKey) -> bool:
        """Insert an `active` or `next` key; False if there already is one. The unique index decides."""
        statement = sa.insert(signing_keys).values(row_of(key))
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True

    async def retire_active(self, now: datetime) -> None:
        """Retire the active key. It no longer signs, but still verifies."""
        await self._connection.execute(
            sa.update(signing_keys)
            .where(signing_keys.c.state == "active")
            .values(state="retired", state_since=now)
        )

    async def activate(self, key_id: UUID, now: datetime) -> bool:
        """Let the next key sign; False if it is no longer the next one."""
        statement = (
            sa.update(signing_keys)
            .where(signing_keys.c.id == key_id, signing_keys.c.state == "next")
            .values(state="active", state_since=now)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def drop(self, key_id: UUID, now: datetime) -> bool:
        """Drop a key and wipe its private part; False if it was dropped before."""
        statement = (
            sa.update(signing_keys)
            .where(signing_keys.c.id == key_id, signing_keys.c.state != "dropped")
            .values(state="dropped", state_since=now, private_key=b"")
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def reseal(self, key: StoredKey, sealed: bytes) -> bool:
        """Replace the encrypted private key, but only over the one that was decrypted."""
        statement = (
            sa.update(signing_keys)
            .where(signing_keys.c.id == key.id, signing_keys.c.private_key == key.private_key)
            .values(private_key=sealed)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def delete_retired(self, before: datetime) -> None:
        """Delete keys that were retired before a given time, so that all of their tokens have expired."""
        chosen = (
            sa.select(signing_keys.c.id)
            .where(signing_keys.c.state == "retired", signing_keys.c.state_since < before)
            .order_by(signing_keys.c.id)
            .with_for_update()
        )
        await self._connection.execute(sa.delete(signing_keys).where(signing_keys.c.id.in_(chosen)))
