"""`sessionapi copy-database`: moving from SQLite to PostgreSQL, or from any database to any other."""

import asyncio
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sessionapi import container, logging, settings
from sessionapi.cli import output
from sessionapi.cli.context import PATIENCE, missing_database
from sessionapi.cli.prompts import err, say
from sessionapi.errors import NotFound, StartupError
from sessionapi.settings import Settings
from sessionapi.storage import database_url, migrations
from sessionapi.storage.database_copy import DatabaseCopy, Sum

COLUMNS = ("table", "rows", "sha256")


def copy_database(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The new, empty database.")],
    as_json: output.AsJson = False,
) -> None:
    """Copy all data into another database, and compare; nobody is logged out.

    Interrupted, it goes on when it is run again. The last run is one with the service stopped.
    """
    patient = {"database_timeout": PATIENCE}
    source, target = settings.load(patient), settings.load({**patient, "database_url": to})
    logging.configure(log_format=source.log_format, level="warning", cached=False)
    sums = asyncio.run(_copy(source, target))
    rows = [{"table": each.table, "rows": each.rows, "sha256": each.digest} for each in sums]
    output.show(rows, COLUMNS, as_json=as_json)
    say("All is the same on both sides. Serve the new place, and the old one never again, with")
    say("  SESSIONAPI_DATABASE_URL=<the address that --to named>")
    say(f"  SESSIONAPI_SECRET={_secret(source)}")
    say("and all other settings as they are.")


async def _copy(source: Settings, target: Settings) -> list[Sum]:
    _require_file(source)
    await container.bootstrap(source)  # which refuses a server secret that doesn't open the key ring
    database_url.make_folder(target.effective_database_url)
    for each, version_of in ((source, migrations.check), (target, migrations.migrate)):
        url = each.effective_database_url
        _require_own_schema(url, await version_of(url))
    stores = container.store_of(source), container.store_of(target)
    try:
        with _progress() as progress:
            task = progress.add_task("")
            copy = DatabaseCopy(
                *stores, lambda table, rows: progress.update(task, description=table, advance=rows)
            )
            progress.update(task, total=2 * await copy.total())  # each row is copied, then compared
            return await copy.run()
    finally:
        for store in stores:
            await store.close()


def _progress() -> Progress:
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=not err.is_terminal)


def _require_file(source: Settings) -> None:
    """Refuse a path without a database, where a mistyped one would be made anew, and empty."""
    if path := missing_database(source):
        raise NotFound(f"There is no database {path}. Set SESSIONAPI_DATA_DIR as the service has it.")


def _require_own_schema(url: str, version: str) -> None:
    """Refuse a schema of a newer version: what that one has added would be left behind."""
    if version != migrations.newest():
        raise StartupError(
            f"{database_url.shown(url)} has schema {version}, of a newer sessionapi: copy with that one"
        )


def _secret(source: Settings) -> str:
    """Say which server secret the new place needs, without showing it."""
    if source.secret is None:
        return f'"$(cat {source.data_dir.resolve() / "secret"})"'
    return "<the same as here>"
