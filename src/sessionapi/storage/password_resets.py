"""Queries on the one-time tokens that reset a password."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from sessionapi.storage.queries import Queries
from sessionapi.storage.tables import password_resets


class PasswordResetQueries(Queries):
    """One-time tokens, in one transaction."""

    async def insert(self, user_id: UUID, digest: bytes, expires_at: datetime) -> None:
        """Store the digest of a one-time token, replacing any earlier one of this user."""
        await self.delete(user_id)
        await self._connection.execute(
            sa.insert(password_resets).values(token_digest=digest, user_id=user_id, expires_at=expires_at)
        )

    async def delete(self, user_id: UUID) -> None:
        """Void a user's one-time token."""
        await self._connection.execute(sa.delete(password_resets).where(password_resets.c.user_id == user_id))

    async def user_id(self, digest: bytes, now: datetime) -> UUID | None:
        """Return the user of a one-time token that has not expired, or None."""
        statement = sa.select(password_resets.c.user_id).where(*_good_reset(digest, now))
        found: UUID | None = (await self._connection.execute(statement)).scalar()
        return found

    async def use(self, digest: bytes, now: datetime) -> bool:
        """Use up a one-time token. Return False if it has expired or another request has used it."""
        statement = sa.delete(password_resets).where(*_good_reset(digest, now))
        return (await self._connection.execute(statement)).rowcount == 1

    async def purge(self, now: datetime) -> int:
        """Delete expired one-time tokens."""
        chosen = (
            sa.select(password_resets.c.token_digest)
            .where(password_resets.c.expires_at <= now)
            .with_for_update(skip_locked=True)  # another purge, or a newer token, is deleting it
        )
        statement = sa.delete(password_resets).where(password_resets.c.token_digest.in_(chosen))
        return (await self._connection.execute(statement)).rowcount


def _good_reset(digest: bytes, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return password_resets.c.token_digest == digest, password_resets.c.expires_at > now
