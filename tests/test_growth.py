"""A refresh adds no row, so a day of refreshes leaves the size of the database unchanged."""

import sqlite3

from tests.support.api_client import PASSWORD
from tests.support.app import Running

TABLES = ("users", "sessions", "session_data", "events", "signing_keys", "password_resets")


def size(service: Running) -> tuple[dict[str, int], int]:
    """Return the rows of each table, and the pages of the database after a checkpoint of its log."""
    counts = {table: service.rows(f"select count(*) from {table}")[0][0] for table in TABLES}
    if not service.container.settings.embedded:
        return counts, 0  # PostgreSQL's pages hold old versions of rows until they are vacuumed
    with sqlite3.connect(service.container.settings.data_dir / "sessionapi.db") as database:
        database.execute("pragma wal_checkpoint(truncate)")
        return counts, database.execute("pragma page_count").fetchone()[0]


async def test_a_day_of_refreshes_adds_no_row_and_no_page(service: Running):
    await service.container.accounts.add("ada", None, password=PASSWORD, hashed=None)
    tokens = await service.log_in()
    for _ in range(24):  # the first rotations fill the row's columns
        service.clock.move(50)
        tokens = (await service.refresh(tokens)).json()
    before = size(service)
    for _ in range(24 * 3600 // 50 - 24):
        service.clock.move(50)
        tokens = (await service.refresh(tokens)).json()
    assert tokens["generation"] == 144
    assert size(service) == before
