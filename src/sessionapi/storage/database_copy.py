"""Database copy: copies every row of every table to another database and verifies it. Users stay logged in.

The target is made equal to the source, page by page. Rows that are equal are left, rows that differ are
written, and rows missing from the source are deleted. So an interrupted copy continues when it is run again,
and a copy made while the service was running is quickly brought up to date once the service is stopped.
Everything is read from one snapshot. At the end both databases are read again, and their row counts and
digests are compared.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from sessionapi.errors import Conflict, StartupError
from sessionapi.storage import Store, Transaction
from sessionapi.storage.table_copy import TABLES, Key, Row
from sessionapi.storage.tables import to_microseconds

PAGE = 1_000
"""Maximum rows of each database in memory at once. A transaction on the target writes one such page."""

Follow = Callable[[str, int], None]
"""Progress callback: receives the table and the number of further rows done.

Each row counts twice, when it is copied and when it is verified.
"""


@dataclass(frozen=True, slots=True)
class Sum:
    """Checksum of a table that is the same on both sides: number of rows, and SHA-256 of all in order."""

    table: str
    rows: int
    digest: str


class DatabaseCopy:
    """Copies one store into another with the same schema."""

    def __init__(self, source: Store, target: Store, follow: Follow, page: int = PAGE) -> None:
        self._source = source
        self._target = target
        self._follow = follow
        self._page = page

    async def total(self) -> int:
        """Return the number of rows to copy."""
        async with self._source.read() as tx:
            return sum([await tx.rows.count(table) for table in TABLES])

    async def run(self) -> list[Sum]:
        """Copy everything, and return the verified checksums.

        Raises Conflict if the target contains data that is not from a copy, or if the source changed in the
        meantime.
        """
        await self._claim()
        async with self._source.snapshot() as source:
            for table in reversed(TABLES):
                await self._remove_gone(source, table)
            for table in TABLES:
                await self._bring(source, table)
        sums = await self._verify()
        async with self._target.begin() as tx:
            await tx.rows.unmark_copy()
        return sums

    async def _claim(self) -> None:
        """Mark the target as unfinished, unless it already is. A target with other data is refused."""
        async with self._target.begin() as tx:
            if await tx.rows.copy_unfinished():
                return
            for table in TABLES:
                if held := await tx.rows.count(table):
                    raise Conflict(
                        f"The new database contains data that is not from an interrupted copy ({held} rows "
                        f"of {table.name}). Choose an empty one; nothing was changed."
                    )
            await tx.rows.mark_copy()

    async def _remove_gone(self, source: Transaction, table: sa.Table) -> None:
        """Delete rows from the target that the source no longer has; a first copy finds none."""
        after: Key | None = None
        while True:
            async with self._target.begin() as tx:
                theirs = await tx.rows.keys(table, after, self._page)
                if not theirs:
                    return
                ours = await source.rows.keys(table, after, self._page)
                after = min(theirs[-1], ours[-1]) if len(ours) == self._page else theirs[-1]
                kept = set(ours)
                await tx.rows.remove(table, [key for key in theirs if key <= after and key not in kept])

    async def _bring(self, source: Transaction, table: sa.Table) -> None:
        """Write missing and differing rows into the target, in one transaction per page."""
        async for after, page in _pages(source, table, self._page):
            async with self._target.begin() as tx:
                there = {_line(row) for row in await tx.rows.between(table, after, _key(table, page[-1]))}
                await tx.rows.put(table, [row for row in page if _line(row) not in there])
            self._follow(table.name, len(page))

    async def _verify(self) -> list[Sum]:
        async with self._source.snapshot() as source, self._target.snapshot() as target:
            sums = []
            for table in TABLES:
                theirs = await _sum(target, table, self._page)
                ours = await _sum(source, table, self._page)
                self._follow(table.name, ours.rows)
                if ours != theirs:
                    raise Conflict(
                        f"{table.name} is not the same in both databases: {ours.rows} rows here, "
                        f"{theirs.rows} there. If the service was running, stop it. Then run this again, "
                        "which copies only the differences."
                    )
                sums.append(ours)
            return sums


async def refuse_unfinished(store: Store) -> None:
    """Raise StartupError if a copy into this database was begun and not finished."""
    async with store.read() as tx:
        if await tx.rows.copy_unfinished():
            raise StartupError(
                "not all of the old database has been copied into this one: run sessionapi copy-database "
                "there again until it reports that all tables are the same"
            )


async def _pages(tx: Transaction, table: sa.Table, size: int) -> AsyncIterator[tuple[Key | None, list[Row]]]:
    """Yield a table in pages, each with the key after which it begins."""
    after: Key | None = None
    while page := await tx.rows.page(table, after, size):
        yield after, page
        after = _key(table, page[-1])


async def _sum(tx: Transaction, table: sa.Table, size: int) -> Sum:
    digest, rows = hashlib.sha256(), 0
    async for _, page in _pages(tx, table, size):
        digest.update("".join(map(_line, page)).encode())
        rows += len(page)
    return Sum(table.name, rows, digest.hexdigest())


def _key(table: sa.Table, row: Row) -> Key:
    return tuple(row[column.name] for column in table.primary_key.columns)


def _line(row: Row) -> str:
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
