"""Growth of the database: a million refreshes must add no row and no page."""

import asyncio
import sqlite3
import time
from pathlib import Path

import asyncpg

from benchmarks import fill, postgresql, service, workloads
from benchmarks.load import LONG, Run
from benchmarks.measures.refresh import outcomes
from benchmarks.plan import Plan
from benchmarks.processes import Process
from benchmarks.results import Results, Row
from sessionapi.settings import Settings
from sessionapi.storage import database_url, tables
from sessionapi.tokens import refresh_token

ROTATE_AFTER, REFRESH_GRACE = 3, 1
"""The smallest value, in seconds, that the settings accept, so that each pass rotates every session again."""
SESSIONS = 100_000
WARM = 2
"""Passes before the first count. They fill the columns, and PostgreSQL reserves space next to each row."""
FLAT = 0.05
"""The fraction by which the pages may grow."""
WAIT = 0.3


def measure(plan: Plan, results: Results) -> None:
    """Rotate the same sessions again and again, and count rows and pages before and after."""
    for engine in ("SQLite", "PostgreSQL") if plan.postgresql else ("SQLite",):
        folder = plan.place(f"growth-{engine}")
        url = postgresql.database(plan.postgresql, "growth") if engine == "PostgreSQL" else ""
        times = {"rotate_after": ROTATE_AFTER, "refresh_grace": REFRESH_GRACE, "database_url": url}
        settings = service.settings_of(folder, **times)
        service.prepare(settings)
        with service.running(folder, **times) as process:
            results.rows.append(_grow(plan, folder, engine, settings, process))


def _grow(plan: Plan, folder: Path, engine: str, settings: Settings, process: Process) -> Row:
    count = min(SESSIONS, plan.refreshes // 3)
    texts = fill.fill(settings, service.refresh_key(), count, due=True).refresh_tokens
    for generation in range(WARM):
        _pass(folder, process, texts, generation)
    before = _size(settings)
    passes = plan.refreshes // count
    for generation in range(WARM, WARM + passes):
        _pass(folder, process, texts, generation)
    rotated = outcomes(process.url)["rotation"] - WARM * count
    after = _size(settings)
    rows, pages = after[0] - before[0], after[1] - before[1]
    measured = (
        f"{rows:+d} rows, {pages:+d} pages of {before[1]:,} ({rotated:,} rotations of {count:,} sessions)"
    )
    what = f"database growth by {passes * count:,} refreshes, {engine}"
    return Row(what, "0 rows; pages flat after vacuum", measured, rows == 0 and pages <= before[1] * FLAT)


def _pass(folder: Path, process: Process, texts: list[str], generation: int) -> None:
    """Rotate every session once, each with its token of this generation, and wait until all are due again."""
    bodies = (workloads.refresh_body(_of_generation(text, generation)) for text in texts)
    posts = workloads.posts(f"{process.url}/refresh", folder / "refresh.txt", bodies, once=True)
    Run(**posts.arguments, seconds=LONG).result()
    time.sleep(ROTATE_AFTER + WAIT)


def _of_generation(text: str, generation: int) -> str:
    key = service.refresh_key()
    token = refresh_token.match(text, [key])
    assert token is not None
    return refresh_token.mint(
        refresh_token.RefreshToken(token.user_id, token.session_id, generation, token.secret), key
    )


def _size(settings: Settings) -> tuple[int, int]:
    """Return (rows of all tables, pages of the database) after a vacuum."""
    url, names = settings.effective_database_url, list(tables.metadata.tables)
    if not settings.embedded:
        return asyncio.run(_size_there(url, names))
    with sqlite3.connect(database_url.sqlite_path(url), timeout=60, isolation_level=None) as database:
        database.execute("VACUUM")
        rows = sum(database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names)
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.close()
    return rows, pages


async def _size_there(url: str, names: list[str]) -> tuple[int, int]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM", timeout=None)
        rows = [await connection.fetchval(f"SELECT count(*) FROM {name}") for name in names]
        sizes = [await connection.fetchval(f"SELECT pg_total_relation_size('{name}')") for name in names]
        return sum(rows), sum(sizes) // 8192
    finally:
        await connection.close()
