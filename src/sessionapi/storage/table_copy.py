"""Whole tables, page by page in the order of their primary keys: what a copy asks of both databases.

The keys are ordered alike on both engines: ids and digests by their bytes.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.errors import Conflict
from sessionapi.storage.tables import metadata

TABLES: Sequence[sa.Table] = metadata.sorted_tables
"""All tables, each behind those that it refers to."""

Key = tuple[Any, ...]
"""The values of a primary key."""
Row = dict[str, Any]
"""The values of a row by the names of its columns."""

_unfinished = sa.Table("unfinished_copy", sa.MetaData(), sa.Column("one", sa.Integer, primary_key=True))
"""There from the first row of a copy to the last check: a mark in the database that is copied to."""


class CopyQueries:
    """The part of `Transaction` that reads and writes rows as they are, of any table."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def take_snapshot(self) -> None:
        """Let all that this transaction reads be of one moment; it must be the first statement."""
        if self._connection.dialect.name == "postgresql":
            await self._connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            await self._connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))

    async def count(self, table: sa.Table) -> int:
        """Return how many rows a table has."""
        counted = await self._connection.execute(sa.select(sa.func.count()).select_from(table))
        return int(counted.scalar_one())

    async def keys(self, table: sa.Table, after: Key | None, limit: int) -> list[Key]:
        """Return primary keys in their order, from behind one."""
        columns = tuple(table.primary_key.columns)
        statement = sa.select(*columns).where(_behind(columns, after)).order_by(*columns).limit(limit)
        return [tuple(row) for row in await self._connection.execute(statement)]

    async def page(self, table: sa.Table, after: Key | None, limit: int) -> list[Row]:
        """Return rows in the order of their keys, from behind one."""
        columns = tuple(table.primary_key.columns)
        statement = sa.select(table).where(_behind(columns, after)).order_by(*columns).limit(limit)
        return [dict(row) for row in (await self._connection.execute(statement)).mappings()]

    async def between(self, table: sa.Table, after: Key | None, last: Key) -> list[Row]:
        """Return rows from behind one key up to another."""
        columns = tuple(table.primary_key.columns)
        statement = sa.select(table).where(_behind(columns, after), _tuple(columns) <= _values(columns, last))
        return [dict(row) for row in (await self._connection.execute(statement)).mappings()]

    async def put(self, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows, over those of the same keys; Conflict if the database doesn't take one."""
        if not rows:
            return
        insert = postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert
        statement: Any = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={column.name: statement.excluded[column.name] for column in table.columns},
        )
        try:
            await self._connection.execute(statement, list(rows))
        except DBAPIError as problem:
            if problem.connection_invalidated or type(problem).__name__ == "OperationalError":
                raise
            said = str(problem.orig).splitlines()[0]
            raise Conflict(
                f"A row of {table.name} can't be written over what was copied before ({said}). "
                "Make the new database empty, and copy again."
            ) from problem

    async def remove(self, table: sa.Table, keys: Sequence[Key]) -> None:
        """Delete the rows of these keys."""
        columns = tuple(table.primary_key.columns)
        for key in keys:
            await self._connection.execute(sa.delete(table).where(_tuple(columns) == _values(columns, key)))

    async def copy_unfinished(self) -> bool:
        """Return whether a copy into this database was begun and not finished."""
        return await self._connection.run_sync(lambda it: sa.inspect(it).has_table(_unfinished.name))

    async def mark_copy(self) -> None:
        """Mark this database as one whose rows are not all there."""
        await self._connection.run_sync(_unfinished.create)

    async def unmark_copy(self) -> None:
        """Take the mark away: all is there."""
        await self._connection.run_sync(_unfinished.drop)


def _behind(columns: tuple[sa.Column[Any], ...], after: Key | None) -> sa.ColumnElement[bool]:
    return sa.true() if after is None else _tuple(columns) > _values(columns, after)


def _tuple(columns: tuple[sa.Column[Any], ...]) -> sa.ColumnElement[Any]:
    return columns[0] if len(columns) == 1 else sa.tuple_(*columns)


def _values(columns: tuple[sa.Column[Any], ...], key: Key) -> sa.ColumnElement[Any]:
    bound = [sa.literal(value, column.type) for column, value in zip(columns, key, strict=True)]
    return bound[0] if len(bound) == 1 else sa.tuple_(*bound)
