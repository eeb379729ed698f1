"""Lists as a table for people or as JSON lines for programs, with the same fields as the HTTP API."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sessionapi.cli import prompts
from sessionapi.logging import escape_unprintable
from sessionapi.models import Item, Key, Page
from sessionapi.representations import Members

PAGE = 100
WIDE = 1000
"""Width of a table that is not shown on a terminal, so that lines in a file or a pipe are not folded."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, as in the HTTP API.")]
Limit = Annotated[int, typer.Option(min=1, help="Maximum number of lines.")]


async def collect_pages(
    fetch: Callable[[int, Key | None], Awaitable[Page[Item, Key]]], limit: int
) -> tuple[list[Item], bool]:
    """Return up to `limit` items of a paged list, and whether there are more."""
    page = await fetch(min(limit, PAGE), None)
    items = list(page.items)
    while page.next_key is not None and len(items) < limit:
        page = await fetch(min(limit - len(items), PAGE), page.next_key)
        items += page.items
    return items, page.next_key is not None


def show(rows: Sequence[Members], columns: Sequence[str], *, as_json: bool, more: bool = False) -> None:
    """Print a list, and a notice on standard error if there is more."""
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    else:
        _console().print(_table(rows, columns))
    if more:
        prompts.say("There are more: see --limit.")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def _table(rows: Sequence[Members], columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        # Users copy ids, so a narrow terminal folds the other columns first.
        table.add_column(column, overflow="fold", no_wrap=column.endswith("id"))
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(value)
    return escape_unprintable(value) if isinstance(value, str) else json.dumps(value)
