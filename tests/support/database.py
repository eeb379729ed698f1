"""The database of a test, without the app."""

import sqlite3
from contextlib import closing

from sessionapi.storage.database_url import sqlite_path
from sessionapi.storage.tables import metadata
from tests.support import postgres


def rows(url: str, query: str) -> list[tuple]:
    """Return the rows of a database. Ids and JSON have SQLite's form on both engines."""
    if url.startswith("postgresql:"):
        return postgres.fetch(url, query)
    with closing(sqlite3.connect(sqlite_path(url))) as database:
        return database.execute(query).fetchall()


def empty(url: str) -> None:
    """Delete all rows, which takes a millisecond; a new database would take fifty."""
    tables = reversed(metadata.sorted_tables)
    postgres.execute(url, ";".join(f"delete from {table.name}" for table in tables))
