"""Queries on users."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sessionapi.models import User
from sessionapi.storage.queries import Queries, columns_of, row_of
from sessionapi.storage.tables import sessions, users

USER = columns_of(User, users)
"""Columns of a user, in the order of the record's fields."""


class UserQueries(Queries):
    """Users, in one transaction."""

    async def insert(self, user: User, username_key: str) -> bool:
        """Insert a user; False if the name is taken. The unique index decides, even between processes."""
        statement = sa.insert(users).values({**row_of(user), "username_key": username_key})
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True

    async def by_name(self, username_key: str) -> User | None:
        """Return the user with this username key, even a disabled one, or None."""
        return await self._one(_BY_NAME, username_key)

    async def get(self, user_id: UUID) -> User | None:
        """Return a user, including disabled and deleted ones."""
        return await self._one(_BY_ID, user_id)

    async def lock_if_unchanged(self, user_id: UUID, credential_version: int) -> User | None:
        """Lock and return a user who is enabled and whose credentials are still the verified ones."""
        verified = {"key": user_id, "version": credential_version}
        row = (await self._connection.execute(_LOCK, verified)).first()
        return None if row is None else User(*row)

    async def lock(self, user_ids: Collection[UUID]) -> dict[UUID, User]:
        """Lock the rows of users in the order of their ids; return those that exist, including deleted ones.

        Call it first in a transaction, before any lock on a session.
        """
        statement = (
            sa.select(*USER).where(users.c.id.in_(sorted(user_ids))).order_by(users.c.id).with_for_update()
        )
        found = [User(*row) for row in await self._connection.execute(statement)]
        return {user.id: user for user in found}

    async def lock_all(self) -> None:
        """Wait until no other transaction has locked a user's row, and keep others from doing so.

        SQLite has a single writer and needs no lock.
        """
        if self._connection.dialect.name == "postgresql":
            await self._connection.execute(_LOCK_ALL)

    async def bump_credential_version(self, user_id: UUID, **changes: Any) -> bool:
        """Change the row of a user who is not deleted and increment `credential_version`; False if not found.

        Every operation that ends all sessions of a user begins with this. It waits for logins that have
        locked the row. Later logins that verified the old credentials fail (design 4.4).
        """
        statement = (
            sa.update(users)
            .where(users.c.id == user_id, users.c.deleted_at.is_(None))
            .values(credential_version=users.c.credential_version + 1, **changes)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def change(self, user_id: UUID, **changes: Any) -> bool | None:
        """Change the row of a user who is not deleted; None if not found, False if the new name is taken."""
        statement = (
            sa.update(users).where(users.c.id == user_id, users.c.deleted_at.is_(None)).values(changes)
        )
        try:
            async with self._connection.begin_nested():
                changed = await self._connection.execute(statement)
        except IntegrityError:
            return False
        return True if changed.rowcount == 1 else None

    async def page(self, limit: int, after: UUID | None = None) -> list[User]:
        """Return users who are not deleted, oldest first, starting after an id."""
        statement = sa.select(*USER).where(users.c.deleted_at.is_(None)).order_by(users.c.id).limit(limit)
        if after is not None:
            statement = statement.where(users.c.id > after)
        return [User(*row) for row in await self._connection.execute(statement)]

    async def upgrade_hash(self, user_id: UUID, verified: str, upgraded: str) -> None:
        """Write a stronger hash of the same password, but only over the hash that was verified."""
        await self._connection.execute(
            sa.update(users)
            .where(users.c.id == user_id, users.c.password_hash == verified)
            .values(password_hash=upgraded)
        )

    async def purge(self, user_ids: Iterable[UUID]) -> int:
        """Delete the emptied rows among these users that no session refers to any more."""
        emptied = (
            sa.select(users.c.id)
            .where(users.c.id.in_(sorted(set(user_ids))), users.c.deleted_at.is_not(None))
            .order_by(users.c.id)
            .with_for_update()
        )
        statement = sa.delete(users).where(
            users.c.id.in_(emptied), ~sa.exists().where(sessions.c.user_id == users.c.id)
        )
        return (await self._connection.execute(statement)).rowcount

    async def _one(self, statement: sa.Select[Any], key: object) -> User | None:
        row = (await self._connection.execute(statement, {"key": key})).first()
        return None if row is None else User(*row)


_LOCK_ALL = sa.text("LOCK TABLE users IN EXCLUSIVE MODE")

# Built once, because each login needs them.
_BY_NAME = sa.select(*USER).where(users.c.username_key == sa.bindparam("key"))
_BY_ID = sa.select(*USER).where(users.c.id == sa.bindparam("key"))
_LOCK = (
    sa.select(*USER)
    .where(
        users.c.id == sa.bindparam("key"),
        users.c.credential_version == sa.bindparam("version"),
        users.c.disabled_at.is_(None),
        users.c.deleted_at.is_(None),
    )
    .with_for_update()  # omitted on SQLite, which has a single writer
)
