"""Queries on sessions. Every change is one guarded statement, never a read followed by a write."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from sessionapi import ids
from sessionapi.clock import whole_millisecond
from sessionapi.models import (
    DIGEST_SIZE,
    MAX_IDEMPOTENCY_KEYS,
    Attempt,
    Decision,
    RevokedSession,
    RevokeReason,
    Session,
    User,
)
from sessionapi.storage.queries import Queries, columns_of, row_of
from sessionapi.storage.tables import revocation_marks, session_data, sessions, to_microseconds, users
from sessionapi.storage.users import USER

_GREATEST = (
    sa.select(revocation_marks).order_by(revocation_marks.c.up_to.desc()).limit(1).subquery("greatest_mark")
)
"""The mark that ends the most sessions, so that no other mark matters."""
_NO_MARK = UUID(int=0)
_BY_MARK = {
    "revoked_at": sa.func.coalesce(sessions.c.revoked_at, _GREATEST.c.at),
    "revoke_reason": sa.func.coalesce(sessions.c.revoke_reason, _GREATEST.c.reason),
}
SESSION = columns_of(Session, sessions, _BY_MARK)
"""Columns of a session, in which a mark counts as a revocation. The query must use `with_mark`."""
_STORED = columns_of(Session, sessions)
"""Columns of a session as stored, without the marks."""

IDS_PER_STATEMENT = 10_000
"""SQLite accepts 32,766 parameters in a statement, PostgreSQL 32,767; a user may have more sessions."""


class SessionQueries(Queries):
    """The sessions of one user and their data, in one transaction."""

    async def insert(self, session: Session) -> Session:
        """Insert a new session and return it, with another id if a mark would have ended it at once.

        A mark may be ahead of this host's clock by the difference between the clocks of two hosts. The
        statement itself returns the greatest mark, so no login that begins after a mark is ended by it.
        """
        mark = (await self._connection.execute(_INSERT, row_of(session))).scalar()
        if mark is None or session.id > mark:
            return session
        moved = replace(session, id=ids.new_id_after(mark))
        statement = sa.update(sessions).where(_is(session.user_id, session.id)).values(id=moved.id)
        await self._connection.execute(statement)
        return moved

    async def get(self, user_id: UUID, session_id: UUID, *, lock: bool = False) -> Session | None:
        """Return a session, including an ended one; `lock` it if it is about to be changed."""
        statement = sa.select(*SESSION).select_from(with_mark(sessions)).where(_is(user_id, session_id))
        rows = await self._connection.execute(statement.with_for_update(of=sessions) if lock else statement)
        row = rows.first()
        return None if row is None else Session(*row)

    async def get_with_user(
        self, user_id: UUID, session_id: UUID, *, lock: bool = False
    ) -> tuple[Session, User] | None:
        """Return a session with its user; `lock` the session if it is about to be changed."""
        statement = (
            sa.select(*SESSION, *USER)
            .select_from(with_mark(sessions.join(users, users.c.id == sessions.c.user_id)))
            .where(_is(user_id, session_id))
        )
        rows = await self._connection.execute(statement.with_for_update(of=sessions) if lock else statement)
        row = rows.first()
        return None if row is None else (Session(*row[: len(SESSION)]), User(*row[len(SESSION) :]))

    async def secret_matches(self, user_id: UUID, session_id: UUID, digest: bytes) -> bool:
        """Return whether a session's secret has this digest. The secret cannot be derived from the ids."""
        statement = sa.select(sessions.c.id).where(
            _is(user_id, session_id), sessions.c.secret_digest == digest
        )
        return (await self._connection.execute(statement)).first() is not None

    async def note_refresh(
        self, session: Session, attempt: Attempt, decision: Decision, now: datetime
    ) -> Session | None:
        """Record a renewal or a repeat; None if the session has been rotated or ended in the meantime."""
        changes: dict[str, Any] = {"generation": sessions.c.generation}
        if decision.moves_idle_clock:
            changes["last_seen_at"] = now
        if decision.records_late_repeat:
            changes["repeated_at"] = sa.func.coalesce(sessions.c.repeated_at, to_microseconds(now))
        if decision.stores_key and attempt.retry_digest:
            changes["retry_digests"] = _with_digest(attempt.retry_digest)
        statement = sa.update(sessions).where(
            _is(session.user_id, session.id),
            sessions.c.secret_digest == session.secret_digest,
            sessions.c.generation == session.generation,
            active(now),
        )
        return await self._changed(statement.values(changes))

    async def replace_secret(
        self, user_id: UUID, session_id: UUID, digest: bytes, now: datetime
    ) -> Session | None:
        """Give an active session another secret. This counts as a rotation."""
        statement = (
            sa.update(sessions)
            .where(_is(user_id, session_id), active(now))
            .values(
                secret_digest=digest,
                generation=sessions.c.generation + 1,
                rotated_at=now,
                repeated_at=None,
                retry_digests="",
                auth_time=now,
                last_seen_at=now,
            )
        )
        return await self._changed(statement)

    async def name_device(self, user_id: UUID, session_id: UUID, name: str) -> None:
        """Name the device of a session, unless it already has this name."""
        statement = sa.update(sessions).where(
            _is(user_id, session_id), sessions.c.device_name.is_distinct_from(name)
        )
        await self._connection.execute(statement.values(device_name=name))

    async def active(
        self, user_id: UUID, now: datetime, limit: int, before: UUID | None = None
    ) -> list[Session]:
        """Return a user's active sessions, newest first; ids are ordered by time."""
        statement = (
            sa.select(*_STORED)
            .where(sessions.c.user_id == user_id, active(now))
            .order_by(sessions.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(sessions.c.id < before)
        return [Session(*row) for row in await self._connection.execute(statement)]

    async def active_ids(
        self, user_id: UUID, now: datetime, created_before: datetime | None = None
    ) -> list[UUID]:
        """Return the ids of a user's active sessions, locked in the order of the key."""
        statement = (
            sa.select(sessions.c.id)
            .where(sessions.c.user_id == user_id, active(now), started_before(created_before))
            .order_by(sessions.c.id)
            .with_for_update()
        )
        return list((await self._connection.execute(statement)).scalars())

    async def least_recently_seen(
        self, user_id: UUID, now: datetime, keep: int, ending: UUID | None = None
    ) -> list[UUID]:
        """Return the ids of a user's active sessions, except the `keep` most recently seen ones.

        The session `ending` is not counted.
        """
        values = {"user_id": user_id, "now": to_microseconds(now), "keep": keep, "ending": ending or _NO_ID}
        return sorted((await self._connection.execute(_LEAST_RECENTLY_SEEN, values)).scalars())

    async def revoke(
        self, user_id: UUID, session_ids: Sequence[UUID], reason: RevokeReason, now: datetime
    ) -> list[UUID]:
        """End those of a user's sessions that are active, and delete their data; return those that it ended.

        The time of their end is a whole millisecond, which the time of a mark never is; see `revoked_since`.
        """
        ended: list[UUID] = []
        at = whole_millisecond(now)
        for start in range(0, len(session_ids), IDS_PER_STATEMENT):
            some = session_ids[start : start + IDS_PER_STATEMENT]
            statement = (
                sa.update(sessions)
                .where(sessions.c.user_id == user_id, sessions.c.id.in_(some), active(now))
                .values(revoked_at=at, revoke_reason=reason)
                .returning(sessions.c.id)
            )
            ended += (await self._connection.execute(statement)).scalars()
            data = sa.and_(session_data.c.user_id == user_id, session_data.c.session_id.in_(some))
            await self._connection.execute(sa.delete(session_data).where(data))
        return ended

    async def revoked_since(
        self, moment: datetime, marked_at: Sequence[datetime] = ()
    ) -> list[RevokedSession]:
        """Return the sessions of all users that were revoked one by one at or after a given time.

        Sessions that a mark has ended have the time of that mark, one of `marked_at`. They may be millions,
        so only the ranges of the index between these times are read. Other requests run between two
        partitions.
        """
        ended: list[RevokedSession] = []
        marks = sorted(at for at in marked_at if at >= moment)
        for start, end in zip([None, *marks], [*marks, None], strict=True):
            after = sessions.c.revoked_at >= moment if start is None else sessions.c.revoked_at > start
            before = sa.true() if end is None else sessions.c.revoked_at < end
            statement = sa.select(sessions.c.id, sessions.c.revoke_reason, sessions.c.revoked_at)
            found = await self._connection.execute(statement.where(after, before))
            for rows in found.partitions(1_000):
                ended += [RevokedSession(*row) for row in rows]
                await asyncio.sleep(0)
        return ended

    async def data(self, user_id: UUID, session_id: UUID) -> dict[str, Any]:
        """Return the JSON object of a session, or an empty one if none was stored."""
        statement = sa.select(session_data.c.data).where(_data_of(user_id, session_id))
        data: dict[str, Any] | None = (await self._connection.execute(statement)).scalar()
        return data or {}

    async def put_data(self, user_id: UUID, session_id: UUID, data: Mapping[str, Any]) -> None:
        """Store the JSON object of a session; the transaction must have locked the row of its user."""
        changed = await self._connection.execute(
            sa.update(session_data).where(_data_of(user_id, session_id)).values(data=dict(data))
        )
        if changed.rowcount == 0:
            await self._connection.execute(
                sa.insert(session_data).values(user_id=user_id, session_id=session_id, data=dict(data))
            )

    async def _changed(self, statement: sa.Update) -> Session | None:
        row = (await self._connection.execute(statement.returning(*_STORED))).first()
        return None if row is None else Session(*row)


def _is(user_id: UUID, session_id: UUID) -> sa.ColumnElement[bool]:
    return sa.and_(sessions.c.user_id == user_id, sessions.c.id == session_id)


def _data_of(user_id: UUID, session_id: UUID) -> sa.ColumnElement[bool]:
    return sa.and_(session_data.c.user_id == user_id, session_data.c.session_id == session_id)


def started_before(moment: datetime | None) -> sa.ColumnElement[bool]:
    """Return the condition that a session began before a given time, if there is one."""
    return sa.true() if moment is None else sessions.c.created_at < moment


def with_mark(joined: sa.FromClause) -> sa.FromClause:
    """Return sessions, joined to others or not, each with the mark that has ended it, if any."""
    return joined.outerjoin(_GREATEST, sessions.c.id <= _GREATEST.c.up_to)


def active(now: datetime) -> sa.ColumnElement[bool]:
    """Return the SQL condition for an active session, the opposite of `policy.ended`.

    It is not revoked, individually or by a mark, and neither of its two ends has passed.
    """
    return active_at(sa.literal(to_microseconds(now), sa.BigInteger))


def active_at(microseconds: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return the condition of `active` for an SQL expression of microseconds since 1970."""
    mark = sa.func.coalesce(sa.select(_GREATEST.c.up_to).scalar_subquery(), _NO_MARK)
    return sa.and_(_unended_at(microseconds), sessions.c.id > mark)


def unmarked_and_unexpired(now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a row is neither revoked nor expired; a mark may still have ended it."""
    return _unended_at(sa.literal(to_microseconds(now), sa.BigInteger))


def _unended_at(microseconds: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    seen = sa.type_coerce(sessions.c.last_seen_at, sa.BigInteger)
    end = sa.type_coerce(sessions.c.expires_at, sa.BigInteger)
    idle = sa.cast(sessions.c.idle_timeout, sa.BigInteger) * 1_000_000
    return sa.and_(sessions.c.revoked_at.is_(None), end > microseconds, seen + idle > microseconds)


def hide_from_planner(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return the same condition in a form for which the planner uses no index.

    Otherwise SQLite would use the index on `revoked_at`, which matches every active session.
    """
    return sa.case((condition, sa.true()), else_=sa.false())


def _with_digest(digest: str) -> sa.ColumnElement[str]:
    """Append a digest to the stored ones, unless it is among them or the maximum is reached."""
    kept = sessions.c.retry_digests
    full = sa.func.length(kept) >= MAX_IDEMPOTENCY_KEYS * DIGEST_SIZE
    return sa.case((sa.or_(full, kept.contains(digest)), kept), else_=kept + digest)


_NO_ID = UUID(int=0)

# Built once, because each login needs them.
_INSERT = sa.insert(sessions).returning(sa.select(_GREATEST.c.up_to).scalar_subquery())
_LEAST_RECENTLY_SEEN = (
    sa.select(sessions.c.id)
    .where(
        sessions.c.user_id == sa.bindparam("user_id"),
        sessions.c.id != sa.bindparam("ending"),
        active_at(sa.bindparam("now", type_=sa.BigInteger)),
    )
    .order_by(sessions.c.last_seen_at.desc(), sessions.c.id.desc())
    .offset(sa.bindparam("keep", type_=sa.Integer))
)
