"""Moving to another database: every row of every table, verified, and nobody is logged out.

The target is made equal to the source, page by page: what is there already and equal is left, what differs is
written, what is gone is deleted. So a copy that was interrupted goes on when it is run again, and one that
was made beside a running service is brought up to date in a short while once that is stopped. All is read
from one snapshot; in the end both databases are read anew, and their counts and digests compared.
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
"""Rows in memory at once, of each side; a transaction of the target is as long."""

Follow = Callable[[str, int], None]
"""Told which table is at work and how many rows of it are done more; each row is done twice."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A table that is the same on both sides: how many rows, and the SHA-256 of all in their order."""

    table: str
    rows: int
    digest: str


class DatabaseCopy:
    """Copies one store into another of the same schema."""

    def __init__(self, source: Store, target: Store, follow: Follow, page: int = PAGE) -> None:
        self._source = source
        self._target = target
        self._follow = follow
        self._page = page

    async def total(self) -> int:
        """Return how many rows there are to copy."""
        async with self._source.read() as tx:
            return sum([await tx.count(table) for table in TABLES])

    async def run(self) -> list[Sum]:
        """Copy all, and return what was verified.

        Raises Conflict if the target holds what no copy has brought, or if the source changed meanwhile.
        """
        await self._claim()
        async with self._source.snapshot() as source:
            for table in reversed(TABLES):
                await self._remove_gone(source, table)
            for table in TABLES:
                await self._bring(source, table)
        sums = await self._verify()
        async with self._target.begin() as tx:
            await tx.unmark_copy()
        return sums

    async def _claim(self) -> None:
        """Mark the target as unfinished, if it isn't; refuse one that is in use or holds other data."""
        async with self._target.begin() as tx:
            if await tx.copy_unfinished():
                return
            for table in TABLES:
                if held := await tx.count(table):
                    raise Conflict(
                        f"The new database holds data that no interrupted copy has left ({held} rows of "
                        f"{table.name}). Name an empty one; nothing was changed."
                    )
            await tx.mark_copy()

    async def _remove_gone(self, source: Transaction, table: sa.Table) -> None:
        """Delete from the target what the source hasn't any more; a first copy finds nothing there."""
        after: Key | None = None
        while True:
            async with self._target.begin() as tx:
                theirs = await tx.keys(table, after, self._page)
                if not theirs:
                    return
                ours = await source.keys(table, after, self._page)
                after = min(theirs[-1], ours[-1]) if len(ours) == self._page else theirs[-1]
                kept = set(ours)
                await tx.remove(table, [key for key in theirs if key <= after and key not in kept])

    async def _bring(self, source: Transaction, table: sa.Table) -> None:
        """Write into the target what it lacks and what differs, a transaction for each page."""
        async for after, page in _pages(source, table, self._page):
            async with self._target.begin() as tx:
                there = {_line(row) for row in await tx.between(table, after, _key(table, page[-1]))}
                await tx.put(table, [row for row in page if _line(row) not in there])
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
                        f"{table.name} isn't the same on both sides: {ours.rows} rows here, {theirs.rows} "
                        "there. If the service was running, stop it; then run this again, which copies only "
                        "what differs."
                    )
                sums.append(ours)
            return sums


async def refuse_unfinished(store: Store) -> None:
    """Raise StartupError if a copy into this database was begun and not finished."""
    async with store.read() as tx:
        if await tx.copy_unfinished():
            raise StartupError(
                "not all of the old database has been copied into this one: run sessionapi copy-database "
                "there again until it says that all is the same"
            )


async def _pages(tx: Transaction, table: sa.Table, size: int) -> AsyncIterator[tuple[Key | None, list[Row]]]:
    """Yield a table in pages, each with the key that it begins behind."""
    after: Key | None = None
    while page := await tx.page(table, after, size):
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
    """Return a row as text, the same for equal values whichever engine they come from."""
    return json.dumps(_plain(row), sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; PostgreSQL keeps 1e3 as 1000, so a whole number is written as one."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, datetime):
        return to_microseconds(value)
    return value.hex if isinstance(value, UUID) else value.hex() if isinstance(value, bytes) else value
