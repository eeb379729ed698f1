"""Questions about counts of wrong passwords."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.limits import Bucket
from sessionapi.storage.tables import password_tries as tries


class TryQueries:
    """The part of `Tx` that reads and writes `password_tries`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def reserve_try(
        self, buckets: Sequence[Bucket], user_id: UUID | None, now: datetime
    ) -> dict[bytes, int]:
        """Count one more try in each bucket that has room, and return the new counts of those that had.

        One statement decides and counts, so that of any number of tries at once none is one too many.
        """
        statement = _insert(self._connection.dialect.name).values(
            [
                {
                    "bucket": bucket.key,
                    "user_id": user_id,
                    "failures": 1,
                    "ends_at": now + bucket.kept if bucket.kept else None,
                }
                for bucket in buckets
            ]
        )
        over = tries.c.ends_at <= now
        quota = sa.case({bucket.key: bucket.quota for bucket in buckets}, value=tries.c.bucket)
        counted = statement.on_conflict_do_update(
            index_elements=[tries.c.bucket],
            set_={
                "failures": sa.case((over, 1), else_=tries.c.failures + 1),
                "ends_at": sa.case((over, statement.excluded.ends_at), else_=tries.c.ends_at),
            },
            where=sa.or_(over, tries.c.failures < quota),
        ).returning(tries.c.bucket, tries.c.failures)
        return {row.bucket: row.failures for row in await self._connection.execute(counted)}

    async def tries_end(self, bucket: bytes) -> datetime | None:
        """Return when a count is forgotten, if it is one that ends."""
        statement = sa.select(tries.c.ends_at).where(tries.c.bucket == bucket)
        found: datetime | None = (await self._connection.execute(statement)).scalar()
        return found

    async def touch_tries(self, bucket: bytes) -> None:
        """Write a count as it is: what a failure costs, whoever it is about."""
        statement = sa.update(tries).where(tries.c.bucket == bucket).values(failures=tries.c.failures)
        await self._connection.execute(statement)

    async def clear_tries(self, buckets: Sequence[bytes]) -> None:
        """Forget counts, one by one in the given order, which is that of their reservation."""
        for bucket in buckets:
            await self._connection.execute(sa.delete(tries).where(tries.c.bucket == bucket))

    async def clear_tries_of(self, user_id: UUID) -> None:
        """Forget all counts of a user."""
        chosen = (
            sa.select(tries.c.bucket)
            .where(tries.c.user_id == user_id)
            .order_by(tries.c.bucket)
            .with_for_update()
        )
        await self._connection.execute(sa.delete(tries).where(tries.c.bucket.in_(chosen)))

    async def full_buckets(self, buckets: Sequence[bytes], quota: int) -> set[bytes]:
        """Return those of the counts that have reached a quota."""
        statement = sa.select(tries.c.bucket).where(tries.c.bucket.in_(buckets), tries.c.failures >= quota)
        return set((await self._connection.execute(statement)).scalars())

    async def purge_tries(self, now: datetime, limit: int) -> int:
        """Delete up to `limit` counts whose time is over; return how many."""
        chosen = (
            sa.select(tries.c.bucket)
            .where(tries.c.ends_at <= now)
            .limit(limit)
            .with_for_update(skip_locked=True)  # one that is being counted at this moment is none to delete
        )
        deleted = await self._connection.execute(sa.delete(tries).where(tries.c.bucket.in_(chosen)))
        return deleted.rowcount


def _insert(dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that can go on with ON CONFLICT: the two engines write it alike."""
    return sqlite.insert(tries) if dialect == "sqlite" else postgresql.insert(tries)
