"""Refreshes in a large table and in a small one: the same few sessions, spread among millions of others."""

import asyncio
import contextlib
import random
import sqlite3
from uuid import UUID

import asyncpg

from benchmarks import fill, postgresql, rounds, service, workloads
from benchmarks.load import Measured, Run
from benchmarks.plan import Plan
from benchmarks.processes import Process
from benchmarks.results import Results, Row
from benchmarks.workloads import Workload
from sessionapi.clock import system_clock
from sessionapi.settings import Settings
from sessionapi.storage import database_url
from sessionapi.storage.tables import to_microseconds

TARGET = 1.3
BEGIN = 0x019000000000
"""The time in the id of the first of the other sessions; each next id is one millisecond later."""
VERSION = "70008000"
"""The digits of a UUIDv7 between its time and its last 12 digits: version, variant, no randomness."""
USER_COLUMNS = "id, username, username_key, credential_version, roles, claims, preferences, created_at"
SESSION_COLUMNS = (
    "user_id, id, generation, secret_digest, rotated_at, retry_digests, created_at, auth_time, last_seen_at,"
    " idle_timeout, expires_at, ip, amr, transport, remember"
)
OTHERS = {
    "users": f"""
        INSERT INTO users ({USER_COLUMNS}) {{numbers}}
        SELECT {{id}}, {{name}}, {{name}}, 0, '[]', '{{{{}}}}', '{{{{}}}}', {{now}} FROM n
    """,
    "sessions": f"""
        INSERT INTO sessions ({SESSION_COLUMNS}) {{numbers}}
        SELECT {{id}}, {{id}}, 0, {{digest}}, {{now}}, '', {{now}}, {{now}}, {{now}},
          604800, {{now}} + 2592000000000 + i, '127.0.0.1', '["pwd"]', 'body', {{true}} FROM n
    """,
}
SQLITE = {
    "numbers": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})",
    "id": f"printf('%012x', {BEGIN} + i) || '{VERSION}000000000000'",
    "name": "printf('other%012d', i)",
    "digest": "randomblob(32)",
    "true": "1",
}
POSTGRESQL = {
    "numbers": "WITH n AS (SELECT generate_series(1, {count}) AS i)",
    "id": f"(lpad(to_hex({BEGIN} + i), 12, '0') || '{VERSION}000000000000')::uuid",
    "name": "'other' || lpad(i::text, 12, '0')",
    "digest": "sha256(i::text::bytea)",
    "true": "true",
}


def measure(plan: Plan, results: Results) -> None:
    """Measure on both engines."""
    for engine in ("SQLite", "PostgreSQL") if plan.postgresql else ("SQLite",):
        results.rows.append(_engine(plan, engine))


def _engine(plan: Plan, engine: str) -> Row:
    with contextlib.ExitStack() as stack:
        loads = {size: _prepared(plan, engine, size, stack) for size in (plan.few, plan.many)}
        runs = {str(size): lambda load=load: _run(plan, load) for size, load in loads.items()}
        for run in runs.values():
            run()  # warm-up
        found = rounds.interleaved(runs, plan.rounds)
    small, large = rounds.p50(found[str(plan.few)]), rounds.p50(found[str(plan.many)])
    what = f"p50 of refresh with {plan.many:,} sessions in the table ÷ with {plan.few:,}, {engine}"
    factor = large / small
    return Row(what, f"≤ {TARGET}", f"{factor:.2f} ({large:.2f} ms against {small:.2f} ms)", factor <= TARGET)


def _run(plan: Plan, load: Workload) -> Measured:
    return Run(**load.arguments, seconds=plan.seconds, clients=1).result()


def _prepared(plan: Plan, engine: str, size: int, stack: contextlib.ExitStack) -> Workload:
    """Fill a database, start the service on it, and return the load that refreshes the measured sessions."""
    folder = plan.place(f"size-{engine}-{size}")
    url = postgresql.database(plan.postgresql, f"size{size}") if engine == "PostgreSQL" else ""
    settings = service.settings_of(folder, database_url=url)
    service.prepare(settings)
    others = size - plan.few
    if others:
        insert_others(settings, others)
    chosen = random.Random(1)  # the same sessions each time

    def spread() -> UUID:
        time = BEGIN + chosen.randrange(max(others, plan.few))
        return UUID(f"{time:012x}{VERSION}{chosen.randrange(1, 1 << 48):012x}")

    filled = fill.fill(settings, service.refresh_key(), plan.few, new_id=spread)
    process: Process = stack.enter_context(service.running(folder, database_url=url))
    bodies = map(workloads.refresh_body, filled.refresh_tokens)
    return workloads.posts(f"{process.url}/refresh", folder / "refresh.txt", bodies)


def insert_others(settings: Settings, count: int) -> None:
    """Insert users with a session each, in SQL alone. No client has their secrets; they fill the table."""
    embedded = settings.embedded
    words = {"now": str(to_microseconds(system_clock())), **(SQLITE if embedded else POSTGRESQL)}
    words["numbers"] = words["numbers"].format(count=count)
    statements = [text.format(**words) for text in OTHERS.values()]
    if not embedded:
        asyncio.run(_execute(settings.effective_database_url, [*statements, "VACUUM ANALYZE"]))
        return
    with sqlite3.connect(database_url.sqlite_path(settings.effective_database_url)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


async def _execute(url: str, statements: list[str]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=None)
    finally:
        await connection.close()
