"""Measure the constants of docs/scaling.md that hold on any machine: `python -m proofs.capacity`.

These are the size of each row with its indexes, on both engines, and the time of a poll by the number of
sessions that were ended in its window. The tables are filled in the same order as by a service.
"""

import asyncio
import sqlite3
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from sessionapi import audit
from sessionapi.clock import system_clock
from sessionapi.container import bootstrap, build
from sessionapi.models import Client
from sessionapi.sessions.sync import LEAST_INTERVAL
from sessionapi.settings import Settings
from sessionapi.storage import Store, migrations
from sessionapi.storage.database_copy import copy
from sessionapi.storage.database_url import Options
from sessionapi.storage.tables import events, sessions, users
from tests.support.postgres import fetch, postgresql
from tests.support.settings import CHEAP_HASH, SERVER_SECRET
from tests.test_copy_database import a_session, a_user

USERS = 20_000
POLLED = (0, 1_000, 10_000, 30_000)
HASH = "$argon2id$v=19$m=19456,t=2,p=1$" + "s" * 22 + "$" + "h" * 43
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)


def fill(path: Path) -> None:
    """Sign users up, each with three logins and the events that these record."""
    where = Client("203.0.113.7", BROWSER)
    engine = sa.create_engine(f"sqlite:///{path}")
    for start in range(0, USERS, 1_000):
        people = [a_user(number, password_hash=HASH) for number in range(start, start + 1_000)]
        logins = [
            {**a_session(user), "ip": where.ip, "user_agent": BROWSER} for user in people for _ in range(3)
        ]
        started = [
            audit.event("session.started", each["created_at"], user_id=each["user_id"], client=where)
            for each in logins
        ]
        rows = [
            {name: getattr(event, name) for name in events.columns.keys()}  # noqa: SIM118 - not a mapping
            for event in started
        ]
        with engine.begin() as database:
            database.execute(sa.insert(users), people)
            database.execute(sa.insert(sessions), logins)
            database.execute(sa.insert(events), rows)
    engine.dispose()


def sqlite_sizes(path: Path) -> dict[str, float]:
    """Return the bytes of a row with its indexes."""
    sizes = {}
    with sqlite3.connect(path) as database:
        for table, rows in (("users", USERS), ("sessions", 3 * USERS), ("events", 3 * USERS)):
            names = "select name from sqlite_schema where tbl_name = ?"
            query = f"select sum(pgsize) from dbstat where name in ({names})"
            sizes[table] = database.execute(query, (table,)).fetchone()[0] / rows
    database.close()
    return sizes


async def polls(url: str) -> list[tuple[int, float]]:
    """Return the milliseconds of a poll by the number of sessions that were ended in its window."""
    settings = Settings(
        _env_file=None, database_url=url, secret=SERVER_SECRET, database_timeout=60, **CHEAP_HASH
    )
    await bootstrap(settings)
    app = build(settings)
    measured = []
    for count in POLLED:
        async with app.store.begin() as tx:
            some = sa.select(sessions.c.id).limit(count).scalar_subquery()
            ended = system_clock() - timedelta(seconds=1)
            change = sa.update(sessions).where(sessions.c.id.in_(some))
            await tx.connection.execute(change.values(revoked_at=ended, revoke_reason="logout"))
        took = []
        for _ in range(5):
            await asyncio.sleep(LEAST_INTERVAL)
            began = time.perf_counter()
            await app.state_sync.sync()
            took.append(time.perf_counter() - began)
        measured.append((count, sorted(took)[2] * 1000))
    await app.stop()
    return measured


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, postgresql() as cluster:
        path, url = Path(folder) / "a.db", cluster.create("capacity")
        for each in (f"sqlite:///{path}", url):
            asyncio.run(migrations.migrate(each))
        fill(path)
        asyncio.run(_copy(path, url))
        for table, size in sqlite_sizes(path).items():
            rows = USERS if table == "users" else 3 * USERS
            there = fetch(url, f"select pg_total_relation_size('{table}')")[0][0] / rows
            print(f"{table}: {size:.0f} bytes a row on SQLite, {there:.0f} on PostgreSQL")  # noqa: T201
        for count, milliseconds in asyncio.run(polls(url)):
            print(f"a poll that finds {count} ended sessions: {milliseconds:.0f} ms")  # noqa: T201


async def _copy(path: Path, url: str) -> None:
    source, target = Store(f"sqlite:///{path}"), Store(url, Options(timeout=60))
    await copy(source, target, lambda *_: None)
    await source.close()
    await target.close()


if __name__ == "__main__":
    main()
