"""Queries on a batch of sessions, each in one statement.

The entries are passed as one JSON text, which may contain only ids, integers, hex, addresses and booleans,
because a NUL in one string would make the whole batch fail. Rotations have one entry per session, because
rows are returned by session. With two, a stale token in the batch would be accepted with its successor's row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql

from sessionapi.models import Session, SessionKey, User
from sessionapi.storage.queries import Queries
from sessionapi.storage.sessions import SESSION, active_at, hide_from_planner, with_mark
from sessionapi.storage.tables import Moment, sessions, to_microseconds, users
from sessionapi.storage.users import USER

Entry = Mapping[str, Any]
Decoder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation to the generation after `generation`, as decided.

    `waited` is the latest time of a late repeat for which the rotation has waited long enough.
    """

    key: SessionKey
    generation: int
    secret_digest: bytes = field(repr=False)
    now: datetime
    waited: datetime
    active: bool
    retry_digest: str | None = field(repr=False)
    ip: str | None


class BatchQueries(Queries):
    """Many sessions at once, in one transaction."""

    async def read(self, keys: Sequence[SessionKey]) -> list[tuple[Session, User] | Exception | None]:
        """Return each session with its user, or None if there is no such session, in the order of `keys`.

        Each row contains the position of its key, so that no id has to be parsed again. For a row that cannot
        be decoded, the error is returned in its place, so that no other session of the batch is affected.
        """
        entries = [
            {"place": place, "user_id": key[0].hex, "id": key[1].hex} for place, key in enumerate(keys)
        ]
        results: list[tuple[Session, User] | Exception | None] = [None] * len(keys)
        decoders = _decoders(self._connection.dialect)
        for place, *columns in await self._ask(_READ, entries):
            try:
                results[place] = _decode(keys[place], columns, decoders)
            except Exception as error:
                results[place] = error
        return results

    async def rotate(self, rotations: Sequence[Rotation]) -> dict[SessionKey, datetime]:
        """Rotate sessions, one entry for each; return those that were rotated, with their `auth_time`.

        `policy.rotated` describes the values that the statement writes. It leaves `auth_time`, which is part
        of the token, unchanged.

        The statement checks again everything that could have changed since a read: the secret, both expiries,
        the revocation, the generation, and a late repeat that a rotation has to wait for. On PostgreSQL the
        rows are locked in the order of the key, because otherwise two batches could deadlock.
        """
        entries = [_entry(rotation) for rotation in rotations]
        return {(row[0], row[1]): row[2] for row in await self._ask(_ROTATE, entries)}

    async def _ask(
        self, statements: Mapping[str, sa.Executable], entries: Sequence[Entry]
    ) -> Sequence[Sequence[Any]]:
        statement = statements[self._connection.dialect.name]
        return (await self._connection.execute(statement, {"asked": to_json(entries).decode()})).all()


_OF_SESSION = SESSION[2:]
"""Columns of a session without its key, which are the first two fields of the record."""
_OF_USER = USER[1:]
"""Columns of a user without the id, which is the first field of the record."""
_KEY: dict[str, sa.types.TypeEngine[Any]] = {"user_id": sa.Uuid(), "id": sa.Uuid()}
_ENTRY: dict[str, sa.types.TypeEngine[Any]] = {
    **_KEY,
    "generation": sa.BigInteger(),
    "digest": sa.String(),
    "now": sa.BigInteger(),
    "waited": sa.BigInteger(),
    "active": sa.Boolean(),
    "retry": sa.String(),
    "ip": sa.String(),
}


@lru_cache
def _decoders(dialect: sa.Dialect) -> list[Decoder | None]:
    """Return the decoder of each column of a session and its user, or None where no conversion is needed."""
    types = [column.type.dialect_impl(dialect) for column in (*_OF_SESSION, *_OF_USER)]
    return [kind.result_processor(dialect, None) for kind in types]


def _decode(
    key: SessionKey, columns: Sequence[Any], decoders: Sequence[Decoder | None]
) -> tuple[Session, User]:
    user_id, session_id = key
    values = [
        value if decode is None else decode(value) for value, decode in zip(columns, decoders, strict=True)
    ]
    size = len(_OF_SESSION)
    return Session(user_id, session_id, *values[:size]), User(user_id, *values[size:])


def _entry(rotation: Rotation) -> dict[str, Any]:
    user_id, session_id = rotation.key
    return {
        "user_id": user_id.hex,
        "id": session_id.hex,
        "generation": rotation.generation,
        "digest": rotation.secret_digest.hex(),
        "now": to_microseconds(rotation.now),
        "waited": to_microseconds(rotation.waited),
        "active": rotation.active,
        "retry": rotation.retry_digest or "",
        "ip": rotation.ip,
    }


def _asked(dialect: str, members: dict[str, Any]) -> sa.FromClause:
    """Return the entries of the parameter `asked` as a table."""
    if dialect == "postgresql":
        text = sa.cast(sa.bindparam("asked", type_=sa.Text), postgresql.JSONB)
        rows = sa.func.jsonb_to_recordset(text)
        columns = [sa.column(name, kind) for name, kind in members.items()]
        return rows.table_valued(*columns).render_derived(name="asked", with_types=True)
    entries = sa.func.json_each(sa.bindparam("asked", type_=sa.Text)).table_valued("value", name="json_entry")
    parts = [
        sa.type_coerce(sa.func.json_extract(entries.c.value, f"$.{name}"), kind).label(name)
        for name, kind in members.items()
    ]
    return sa.select(*parts).subquery("asked")


def _hex_digest(dialect: str) -> sa.ColumnElement[str]:
    digest = sessions.c.secret_digest
    return sa.func.encode(digest, "hex") if dialect == "postgresql" else sa.func.lower(sa.func.hex(digest))


def _read(dialect: str) -> sa.Select[Any]:
    asked = _asked(dialect, {"place": sa.Integer(), **_KEY})
    same = sa.and_(sessions.c.user_id == asked.c.user_id, sessions.c.id == asked.c.id)
    joined = asked.join(sessions, same).join(users, users.c.id == sessions.c.user_id)
    raw = [sa.type_coerce(column, sa.types.NullType()) for column in (*_OF_SESSION, *_OF_USER)]
    return sa.select(asked.c.place, *raw).select_from(with_mark(joined))


def _rotate(dialect: str) -> sa.Update:
    asked = _asked(dialect, _ENTRY)
    if dialect == "postgresql":
        asked = _locked(asked)
    same = sa.and_(sessions.c.user_id == asked.c.user_id, sessions.c.id == asked.c.id)
    now = sa.type_coerce(asked.c.now, Moment)
    waited = sa.or_(
        sessions.c.repeated_at.is_(None), sessions.c.repeated_at <= sa.type_coerce(asked.c.waited, Moment)
    )
    conditions = [
        same,
        _hex_digest(dialect) == asked.c.digest,
        hide_from_planner(active_at(asked.c.now)),
        sa.or_(
            sessions.c.generation < asked.c.generation,
            sa.and_(sessions.c.generation == asked.c.generation, waited),
        ),
    ]
    return (
        sa.update(sessions)
        .where(*conditions)
        .values(
            generation=asked.c.generation + 1,
            rotated_at=now,
            repeated_at=None,
            retry_digests=asked.c.retry,
            ip=asked.c.ip,
            last_seen_at=sa.case((asked.c.active, now), else_=sessions.c.last_seen_at),
        )
        .returning(sessions.c.user_id, sessions.c.id, sessions.c.auth_time)
    )


def _locked(asked: sa.FromClause) -> sa.FromClause:
    """Return the entries that have a row, with the rows locked in the order of the key."""
    held = sessions.alias("held")
    return (
        sa.select(*asked.c)
        .join(held, sa.and_(held.c.user_id == asked.c.user_id, held.c.id == asked.c.id))
        .order_by(held.c.user_id, held.c.id)
        .with_for_update(key_share=True, of=held)
        .cte("locked")
    )


_READ = {dialect: _read(dialect) for dialect in ("sqlite", "postgresql")}
_ROTATE = {dialect: _rotate(dialect) for dialect in ("sqlite", "postgresql")}
