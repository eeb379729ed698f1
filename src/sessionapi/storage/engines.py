"""The two engines: an embedded SQLite file, or PostgreSQL."""

from sqlalchemy.ext.asyncio import AsyncEngine

from sessionapi.storage import addresses, postgresql, sqlite
from sessionapi.storage.postgresql import Options


def create(url: str, options: Options | None = None) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) of a plain `sqlite:///` or `postgresql://` address."""
    addresses.check(url)
    if addresses.is_sqlite(url):
        return sqlite.create(url)
    return postgresql.create(url, options or Options())
