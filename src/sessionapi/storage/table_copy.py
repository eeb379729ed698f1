"""Queries on whole tables, page by page in the order of their primary keys, for copying a database.

Both engines order the keys alike: ids and digests by their bytes.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from sessionapi.errors import Conflict
from sessionapi.storage.queries import Queries
from sessionapi.storage.tables import metadata

TABLES: Sequence[sa.Table] = metadata.sorted_tables
"""All tables in foreign-key order."""

Key = tuple[Any, ...]
"""Values of a primary key."""
Row = dict[str, Any]
"""Values of a row by column name."""

_unfinished = sa.Table("unfinished_copy", sa.MetaData(), sa.Column("one", sa.Integer, primary_key=True))
"""Marker in the target database, which exists from the first row of a copy to its final check."""


class RowQueries(Queries):
    """The rows of any table, in one transaction."""

    async def count(self, table: sa.Table) -> int:
        """Return the number of rows of a table."""
        counted = await self._connection.execute(sa.select(sa.func.count()).select_from(table))
        return int(counted.scalar_one())

    async def keys(self, table: sa.Table, after: Key | None, limit: int) -> list[Key]:
        """Return primary keys in order, starting after a given key."""
        columns = tuple(table.primary_key.columns)
        statement = sa.select(*columns).where(_behind(columns, after)).order_by(*columns).limit(limit)
        return [tuple(row) for row in await self._connection.execute(statement)]

    async def page(self, table: sa.Table, after: Key | None, limit: int) -> list[Row]:
        """Return rows in the order of their keys, starting after a given key."""
        columns = tuple(table.primary_key.columns)
        statement = sa.select(table).where(_behind(columns, after)).order_by(*columns).limit(limit)
        return [dict(row) for row in (await self._connection.execute(statement)).mappings()]

    async def between(self, table: sa.Table, after: Key | None, last: Key) -> list[Row]:
        """Return rows after one key, up to and including another."""
        columns = tuple(table.primary_key.columns)
        statement = sa.select(table).where(_behind(columns, after), _tuple(columns) <= _values(columns, last))
        return [dict(row) for row in (await self._connection.execute(statement)).mappings()]

    async def put(self, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows or replace those with the same keys; Conflict if the database refuses one."""
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
                f"A row of {table.name} conflicts with rows that were copied before ({said}). "
                "Empty the new database, and copy again."
            ) from problem

    async def remove(self, table: sa.Table, keys: Sequence[Key]) -> None:
        """Delete the rows with these keys."""
        columns = tuple(table.primary_key.columns)
        for key in keys:
            await self._connection.execute(sa.delete(table).where(_tuple(columns) == _values(columns, key)))

    async def copy_unfinished(self) -> bool:
        """Return whether a copy into this database was begun and not finished."""
        return await self._connection.run_sync(lambda it: sa.inspect(it).has_table(_unfinished.name))

    async def mark_copy(self) -> None:
        """Mark this database as incomplete."""
        await self._connection.run_sync(_unfinished.create)

    async def unmark_copy(self) -> None:
        """Remove the mark, because the copy is complete."""
        await self._connection.run_sync(_unfinished.drop)


def _behind(columns: tuple[sa.Column[Any], ...], after: Key | None) -> sa.ColumnElement[bool]:
    return sa.true() if after is None else _tuple(columns) > _values(columns, after)


def _tuple(columns: tuple[sa.Column[Any], ...]) -> sa.ColumnElement[Any]:
    return columns[0] if len(columns) == 1 else sa.tuple_(*columns)


def _values(columns: tuple[sa.Column[Any], ...], key: Key) -> sa.ColumnElement[Any]:
    bound = [sa.literal(value, column.type) for column, value in zip(columns, key, strict=True)]
    return bound[0] if len(bound) == 1 else sa.tuple_(*bound)
