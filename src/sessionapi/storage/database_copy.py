"""Database copy: copies every row of every table into another, empty database. Users stay logged in.

All rows are written in one transaction, which commits only if both databases then have the same content. So
after a failure or a kill the target is as empty as before, and the copy is simply run again.

Rows are read in pages, in the order of their primary keys. Both engines order the keys alike: ids and digests
by their bytes. The rows to copy come from one snapshot of the source, and the comparison reads it again, so
changes that were made during the copy are detected.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from sessionapi.errors import Conflict
from sessionapi.storage import Store, Transaction
from sessionapi.storage.tables import metadata, to_microseconds

PAGE = 1_000
"""Maximum rows of each database in memory at once."""
TABLES: Sequence[sa.Table] = metadata.sorted_tables
"""All tables in foreign-key order."""
Row = dict[str, Any]
"""Values of a row by column name."""
OnProgress = Callable[[str, int, int], None]
"""Progress callback: receives a table, the number of further rows done, and the total.

Each row counts twice, when it is copied and when it is compared.
"""


@dataclass(frozen=True, slots=True)
class TableDigest:
    """Number of rows of a table, and the SHA-256 of all in order, which are the same in both databases."""

    table: str
    rows: int
    sha256: str


async def copy(source: Store, target: Store, on_progress: OnProgress) -> list[TableDigest]:
    """Copy everything, and return the digest of each table.

    Raises Conflict and leaves the target as it was if the target is not empty or refuses a row, or if the
    source changed in the meantime.
    """
    async with target.begin(deadline=False) as target_tx:
        for table in TABLES:
            if count := await _count(target_tx, table):
                raise Conflict(
                    f"The new database contains data ({count} rows of {table.name}). Choose an empty one; "
                    "nothing was changed."
                )
        async with source.snapshot() as source_tx:
            total = 2 * sum([await _count(source_tx, table) for table in TABLES])
            for table in TABLES:
                async for page in _pages(source_tx, table):
                    await _insert(target_tx, table, page)
                    on_progress(table.name, len(page), total)
        async with source.snapshot() as source_tx:
            digests = []
            for table in TABLES:
                digests.append(await _compare(source_tx, target_tx, table))
                on_progress(table.name, digests[-1].rows, total)
            return digests


async def _count(tx: Transaction, table: sa.Table) -> int:
    counted = await tx.connection.execute(sa.select(sa.func.count()).select_from(table))
    return int(counted.scalar_one())


async def _pages(tx: Transaction, table: sa.Table) -> AsyncIterator[list[Row]]:
    key = sa.tuple_(*table.primary_key.columns)
    first = sa.select(table).order_by(*table.primary_key.columns).limit(PAGE)
    statement = first
    while page := [dict(row) for row in (await tx.connection.execute(statement)).mappings()]:
        yield page
        statement = first.where(key > tuple(page[-1][column.name] for column in table.primary_key.columns))


async def _insert(tx: Transaction, table: sa.Table, page: list[Row]) -> None:
    try:
        await tx.connection.execute(sa.insert(table), page)
    except DBAPIError as problem:
        if problem.connection_invalidated or isinstance(problem, OperationalError):
            raise
        cause = str(problem.orig).splitlines()[0]
        raise Conflict(
            f"The new database refuses a row of {table.name} ({cause}). It is still empty."
        ) from problem


async def _compare(source_tx: Transaction, target_tx: Transaction, table: sa.Table) -> TableDigest:
    """Compare a table page by page, so that neither transaction waits long enough to time out."""
    digest, rows, target_pages = hashlib.sha256(), 0, _pages(target_tx, table)
    async for page in _pages(source_tx, table):
        if page != await anext(target_pages, []):
            break
        digest.update("".join(map(_canonical, page)).encode())
        rows += len(page)
    counts = await _count(source_tx, table), await _count(target_tx, table)
    if counts != (rows, rows):
        raise Conflict(
            f"{table.name} is not the same in both databases: {counts[0]} rows here, {counts[1]} there. "
            "If the service was running, stop it. Then run this again; the new database is still empty."
        )
    return TableDigest(table.name, rows, digest.hexdigest())


def _canonical(row: Row) -> str:
    """Return a row as text, which is the same for equal values on both engines."""
    return json.dumps(_plain(row), sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    """Return a value as JSON. PostgreSQL stores 1e3 as 1000, so a whole number is written as an integer."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, datetime):
        return to_microseconds(value)
    return value.hex if isinstance(value, UUID) else value.hex() if isinstance(value, bytes) else value
