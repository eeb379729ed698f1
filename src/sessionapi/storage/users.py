"""Queries on users."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.models import User
from sessionapi.storage.tables import password_resets, sessions, users

_COLUMNS = [column for column in users.c if column.name != "username_key"]


class UserQueries:
    """Part of `Transaction` that reads and writes `users`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert_user(self, user: User, username_key: str) -> bool:
        """Insert a user; False if the name is taken. The unique index decides, even between processes."""
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
        """Return the user with this username key, even a disabled one, or None."""
        return await self._one(_BY_NAME, username_key)

    async def user(self, user_id: UUID) -> User | None:
        """Return a user, including disabled and deleted ones."""
        return await self._one(_BY_ID, user_id)

    async def lock_if_unchanged(self, user_id: UUID, credential_version: int) -> User | None:
        """Lock and return a user who is enabled and whose credentials are still the verified ones."""
        verified = {"key": user_id, "version": credential_version}
        row = (await self._connection.execute(_LOCK, verified)).first()
        return None if row is None else user_of(row)

    async def lock_users(self, user_ids: Collection[UUID]) -> dict[UUID, User]:
        """Lock the rows of users in the order of their ids; return those that exist, including deleted ones.

        Call it first in a transaction, before any lock on a session.
        """
        statement = (
            sa.select(*_COLUMNS)
            .where(users.c.id.in_(sorted(user_ids)))
            .order_by(users.c.id)
            .with_for_update()
        )
        found = [user_of(row) for row in await self._connection.execute(statement)]
        return {user.id: user for user in found}

    async def lock_all_users(self) -> None:
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

    async def change_user(self, user_id: UUID, **changes: Any) -> bool | None:
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

    async def all_users(self, limit: int, after: UUID | None = None) -> list[User]:
        """Return users who are not deleted, oldest first, starting after an id."""
        statement = sa.select(*_COLUMNS).where(users.c.deleted_at.is_(None)).order_by(users.c.id).limit(limit)
        if after is not None:
            statement = statement.where(users.c.id > after)
        return [user_of(row) for row in await self._connection.execute(statement)]

    async def upgrade_hash(self, user_id: UUID, verified: str, upgraded: str) -> None:
        """Write a stronger hash of the same password, but only over the hash that was verified."""
        await self._connection.execute(
            sa.update(users)
            .where(users.c.id == user_id, users.c.password_hash == verified)
            .values(password_hash=upgraded)
        )

    async def insert_password_reset(self, user_id: UUID, digest: bytes, expires_at: datetime) -> None:
        """Store the digest of a one-time token, replacing any earlier one of this user."""
        await self.delete_password_reset(user_id)
        await self._connection.execute(
            sa.insert(password_resets).values(token_digest=digest, user_id=user_id, expires_at=expires_at)
        )

    async def delete_password_reset(self, user_id: UUID) -> None:
        """Void a user's one-time token."""
        await self._connection.execute(sa.delete(password_resets).where(password_resets.c.user_id == user_id))

    async def password_reset(self, digest: bytes, now: datetime) -> UUID | None:
        """Return the user of a one-time token that has not expired, or None."""
        statement = sa.select(password_resets.c.user_id).where(*_good_reset(digest, now))
        found: UUID | None = (await self._connection.execute(statement)).scalar()
        return found

    async def use_password_reset(self, digest: bytes, now: datetime) -> bool:
        """Use up a one-time token; False if another request has used it or if it has expired."""
        statement = sa.delete(password_resets).where(*_good_reset(digest, now))
        return (await self._connection.execute(statement)).rowcount == 1

    async def purge_password_resets(self, now: datetime) -> int:
        """Delete expired one-time tokens."""
        chosen = (
            sa.select(password_resets.c.token_digest)
            .where(password_resets.c.expires_at <= now)
            .with_for_update(skip_locked=True)  # another purge, or a newer token, is deleting it
        )
        statement = sa.delete(password_resets).where(password_resets.c.token_digest.in_(chosen))
        return (await self._connection.execute(statement)).rowcount

    async def purge_users(self, user_ids: Iterable[UUID]) -> int:
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
        return None if row is None else user_of(row)


_LOCK_ALL = sa.text("LOCK TABLE users IN EXCLUSIVE MODE")

# Built once, because each login needs them.
_BY_NAME = sa.select(*_COLUMNS).where(users.c.username_key == sa.bindparam("key"))
_BY_ID = sa.select(*_COLUMNS).where(users.c.id == sa.bindparam("key"))
_LOCK = (
    sa.select(*_COLUMNS)
    .where(
        users.c.id == sa.bindparam("key"),
        users.c.credential_version == sa.bindparam("version"),
        users.c.disabled_at.is_(None),
        users.c.deleted_at.is_(None),
    )
    .with_for_update()  # omitted on SQLite, which has a single writer
)


def user_of(row: Sequence[Any]) -> User:
    """Return the record of a row, which has the table's columns in order, except `username_key`."""
    *before, roles, claims, preferences, disabled_at, deleted_at, created_at = row
    record = (*before, tuple(roles), claims, preferences, created_at, disabled_at, deleted_at)
    return User(*record)


def _good_reset(digest: bytes, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return password_resets.c.token_digest == digest, password_resets.c.expires_at > now
