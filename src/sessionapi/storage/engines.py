"""The two engines: an embedded SQLite file, or PostgreSQL."""

from sqlalchemy.ext.asyncio import AsyncEngine

from sessionapi.storage import addresses, sqlite
from sessionapi.storage.addresses import Options


def create(url: str, options: Options | None = None) -> tuple[AsyncEngine, AsyncEngine]:
    """Return (engine for writes, engine for reads) of a plain `sqlite:///` or `postgresql://` address."""
    addresses.check(url)
    if addresses.is_sqlite(url):
        return sqlite.create(url)
    from sessionapi.storage import postgresql  # noqa: PLC0415 - its driver takes 3 MB

    return postgresql.create(url, options or Options())
