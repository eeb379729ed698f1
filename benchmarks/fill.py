"""Bulk inserts of users and sessions, with the same rows that the service's operations write."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import sqlalchemy as sa

from sessionapi import ids
from sessionapi.clock import system_clock
from sessionapi.models import Session, User
from sessionapi.settings import Settings
from sessionapi.storage import database_url, tables
from sessionapi.storage.tables import to_microseconds
from sessionapi.tokens import refresh_token
from sessionapi.tokens.refresh_token import RefreshToken

LONG_AGO = timedelta(hours=1)
"""Seconds since the last rotation of a session that is due: longer than ROTATE_AFTER."""


@dataclass(frozen=True)
class Filled:
    """The refresh tokens of the inserted sessions, and the names of their users."""

    refresh_tokens: list[str]
    usernames: list[str]


def fill(
    settings: Settings,
    key: bytes,
    count: int,
    *,
    due: bool = False,
    password_hash: str | None = None,
    new_id: Callable[[], UUID] = ids.new_id,
) -> Filled:
    """Insert users with one session each. `due` sessions rotate with their next refresh, the others renew."""
    now = system_clock()
    moment = now - LONG_AGO if due else now
    made = [_pair(new_id(), moment, password_hash) for _ in range(count)]
    insert(settings, tables.users, (_user_row(user) for user, _, _ in made))
    insert(settings, tables.sessions, (asdict(session) for _, session, _ in made))
    texts = [refresh_token.mint(_token(session, secret), key) for _, session, secret in made]
    return Filled(texts, [user.username for user, _, _ in made])


def insert(settings: Settings, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows in one transaction, in the fastest way of each engine."""
    url = settings.effective_database_url
    names = [column.name for column in table.c]
    if settings.embedded:
        statement = f"INSERT INTO {table.name} ({','.join(names)}) VALUES ({','.join('?' * len(names))})"
        with sqlite3.connect(database_url.sqlite_path(url)) as database:
            database.executemany(
                statement, ([_plain(row[name], hexed=True) for name in names] for row in rows)
            )
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
    else:
        asyncio.run(_copy(url, table.name, names, rows))


async def _copy(url: str, table: str, names: list[str], rows: Iterable[dict[str, Any]]) -> None:
    connection = await asyncpg.connect(url)
    try:
        records: Iterator[tuple[Any, ...]] = (
            tuple(_plain(row[name], hexed=False) for name in names) for row in rows
        )
        await connection.copy_records_to_table(table, columns=names, records=records)
        await connection.execute(f"ANALYZE {table}")
    finally:
        await connection.close()


def _plain(value: Any, *, hexed: bool) -> Any:
    """Return a value as its column stores it: a time in microseconds, JSON as text, ids in hex on SQLite."""
    if isinstance(value, datetime):
        return to_microseconds(value)
    if isinstance(value, UUID):
        return value.hex if hexed else value
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _pair(user_id: UUID, moment: datetime, password_hash: str | None) -> tuple[User, Session, bytes]:
    secret = ids.new_secret()
    user = User(
        id=user_id,
        username=f"u{user_id.hex}",
        email=None,
        password_hash=password_hash,
        credential_version=0,
        roles=(),
        claims={},
        preferences={},
        created_at=moment,
    )
    return user, session_of(user_id, ids.new_id(), secret, moment), secret


def session_of(user_id: UUID, session_id: UUID, secret: bytes, moment: datetime) -> Session:
    """Return a session that began and was last seen at a given time."""
    return Session(
        user_id=user_id,
        id=session_id,
        generation=0,
        secret_digest=ids.digest(secret),
        rotated_at=moment,
        repeated_at=None,
        retry_digests="",
        created_at=moment,
        auth_time=moment,
        last_seen_at=moment,
        idle_timeout=7 * 86_400,
        expires_at=moment + timedelta(days=30),
        revoked_at=None,
        revoke_reason=None,
        ip="127.0.0.1",
        user_agent=None,
        device_name=None,
        amr=("pwd",),
        transport="body",
        remember=True,
    )


def _user_row(user: User) -> dict[str, Any]:
    return {**asdict(user), "username_key": user.username.casefold()}


def _token(session: Session, secret: bytes) -> RefreshToken:
    return RefreshToken(session.user_id, session.id, session.generation, secret)
