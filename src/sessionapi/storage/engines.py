"""The two engines: an embedded SQLite file, or PostgreSQL."""

from sqlalchemy.ext.asyncio import AsyncEngine

from sessionapi.storage import database_url, sqlite
from sessionapi.storage.database_url import Options


def create(url: str, options: Options | None = None) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) for a plain `sqlite:///` or `postgresql://` URL."""
    database_url.check(url)
    if database_url.is_sqlite(url):
        return sqlite.create(url)
    from sessionapi.storage import postgresql  # noqa: PLC0415 - its driver takes 3 MB

    return postgresql.create(url, options or Options())
