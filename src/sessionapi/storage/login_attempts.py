"""Queries on the counters of wrong passwords."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from sessionapi.models import FailureCounter, FailureCounters
from sessionapi.storage.queries import Queries
from sessionapi.storage.tables import Moment, evaluated_once
from sessionapi.storage.tables import password_tries as tries


class LoginAttemptQueries(Queries):
    """The counters of wrong passwords, in one transaction."""

    async def reserve(
        self, buckets: FailureCounters, user_id: UUID | None, now: datetime
    ) -> dict[bytes, int]:
        """Count an attempt in each counter that has room, and return the new values of these counters.

        A single statement decides and counts, so concurrent attempts cannot exceed the quota.
        """
        first, second = buckets.both
        parameters = {
            "user_id": user_id,
            "now": now,
            "first": first.key,
            "first_quota": first.quota,
            "first_ends_at": _end(first, now),
            "second": second.key,
            "second_quota": second.quota,
            "second_ends_at": _end(second, now),
        }
        return {row.bucket: row.failures for row in await self._connection.execute(_RESERVE, parameters)}

    async def expires_at(self, bucket: bytes) -> datetime | None:
        """Return when a counter expires, or None if it does not."""
        statement = sa.select(tries.c.ends_at).where(tries.c.bucket == bucket)
        found: datetime | None = (await self._connection.execute(statement)).scalar()
        return found

    async def rewrite(self, buckets: FailureCounters) -> None:
        """Rewrite the counters unchanged, so that a failed login costs the same write for an unknown user.

        The statement increments, then decrements: SQLite skips the write, and the fsync, of a page that an
        UPDATE leaves unchanged.
        """
        steps = [{**key, "step": step} for key in _keys(buckets) for step in (1, -1)]
        await self._connection.execute(_TOUCH, steps)

    async def clear(self, buckets: FailureCounters) -> None:
        """Delete counters one by one, in the order in which they were reserved."""
        await self._connection.execute(_CLEAR, _keys(buckets))

    async def clear_of_user(self, user_id: UUID) -> int:
        """Delete all counters of a user; return how many there were."""
        chosen = (
            sa.select(tries.c.bucket)
            .where(tries.c.user_id == user_id)
            .order_by(tries.c.bucket)
            .with_for_update()
        )
        deleted = await self._connection.execute(sa.delete(tries).where(tries.c.bucket.in_(chosen)))
        return deleted.rowcount

    async def full(self, buckets: Sequence[bytes], quota: int) -> set[bytes]:
        """Return those of the counters that have reached a quota."""
        statement = sa.select(tries.c.bucket).where(tries.c.bucket.in_(buckets), tries.c.failures >= quota)
        return set((await self._connection.execute(statement)).scalars())

    async def purge(self, now: datetime, limit: int) -> int:
        """Delete up to `limit` expired counters; return how many were deleted."""
        chosen = (
            sa.select(tries.c.bucket)
            .where(tries.c.ends_at <= now)
            .limit(limit)
            .with_for_update(skip_locked=True)  # a counter that is just being incremented is kept
        )
        statement = sa.delete(tries).where(tries.c.bucket.in_(evaluated_once(chosen)))
        deleted = await self._connection.execute(statement.returning(tries.c.bucket))
        return len(deleted.all())


def _end(bucket: FailureCounter, now: datetime) -> datetime | None:
    return now + bucket.kept if bucket.kept else None


def _keys(buckets: FailureCounters) -> list[dict[str, bytes]]:
    return [{"key": bucket.key} for bucket in buckets.both]


# Built once, because each login needs them. The first is text that both engines accept, because SQLAlchemy
# would compile an INSERT of two rows again for every call.
_RESERVE = (
    sa.text("""
        INSERT INTO password_tries AS kept (bucket, user_id, failures, ends_at)
        VALUES (:first, :user_id, 1, :first_ends_at), (:second, :user_id, 1, :second_ends_at)
        ON CONFLICT (bucket) DO UPDATE SET
            failures = CASE WHEN kept.ends_at <= :now THEN 1 ELSE kept.failures + 1 END,
            ends_at = CASE WHEN kept.ends_at <= :now THEN excluded.ends_at ELSE kept.ends_at END
        WHERE kept.ends_at <= :now
            OR kept.failures < CASE kept.bucket WHEN :first THEN :first_quota ELSE :second_quota END
        RETURNING bucket, failures
    """)
    .bindparams(
        sa.bindparam("user_id", type_=sa.Uuid),
        sa.bindparam("now", type_=Moment),
        *(sa.bindparam(name, type_=sa.LargeBinary) for name in ("first", "second")),
        *(sa.bindparam(name, type_=sa.Integer) for name in ("first_quota", "second_quota")),
        *(sa.bindparam(name, type_=Moment) for name in ("first_ends_at", "second_ends_at")),
    )
    .columns(tries.c.bucket, tries.c.failures)
)
_KEY = tries.c.bucket == sa.bindparam("key")
_TOUCH = (
    sa.update(tries).where(_KEY).values(failures=tries.c.failures + sa.bindparam("step", type_=sa.Integer))
)
_CLEAR = sa.delete(tries).where(_KEY)
