"""Questions about users."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.model import User
from sessionapi.storage.tables import users

_COLUMNS = [column for column in users.c if column.name != "username_key"]


class UserQueries:
    """The part of `Tx` that reads and writes `users`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert_user(self, user: User, username_key: str) -> bool:
        """Insert a user; False if the name is taken. The unique index decides, also between processes."""
        statement = sa.insert(users).values(
            id=user.id,
            username=user.username,
            username_key=username_key,
            email=user.email,
            password_hash=user.password_hash,
            credential_version=user.credential_version,
            roles=list(user.roles),
            claims=dict(user.claims),
            preferences=dict(user.preferences),
            created_at=user.created_at,
        )
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True

    async def user_by_name(self, username_key: str) -> User | None:
        """Return the user of this folded name, disabled ones too."""
        return await self._one(users.c.username_key == username_key)

    async def user(self, user_id: UUID) -> User | None:
        """Return a user, disabled and deleted ones too."""
        return await self._one(users.c.id == user_id)

    async def lock_user(self, user_id: UUID, credential_version: int) -> bool:
        """Lock the row of a user who is enabled and whose credentials are still those that were verified."""
        statement = (
            sa.select(users.c.id)
            .where(
                users.c.id == user_id,
                users.c.credential_version == credential_version,
                users.c.disabled_at.is_(None),
                users.c.deleted_at.is_(None),
            )
            .with_for_update()  # SQLite has one writer and leaves this out
        )
        return (await self._connection.execute(statement)).first() is not None

    async def upgrade_hash(self, user_id: UUID, verified: str, upgraded: str) -> None:
        """Write a stronger hash of the same password, only over the one that was verified."""
        await self._connection.execute(
            sa.update(users)
            .where(users.c.id == user_id, users.c.password_hash == verified)
            .values(password_hash=upgraded)
        )

    async def _one(self, condition: sa.ColumnElement[bool]) -> User | None:
        row = (await self._connection.execute(sa.select(*_COLUMNS).where(condition))).mappings().first()
        return None if row is None else _user(row)


def _user(row: Mapping[Any, Any]) -> User:
    return User(**{**row, "roles": tuple(row["roles"])})
