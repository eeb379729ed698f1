"""`sessionapi copy-database`: move from SQLite to PostgreSQL, or from any database to any other."""

import asyncio
from dataclasses import asdict
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
from sessionapi.storage.database_copy import TableDigest, copy

COLUMNS = ("table", "rows", "sha256")


def copy_database(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The new, empty database.")],
    as_json: output.AsJson = False,
) -> None:
    """Copy all data into another database and compare both. All users stay logged in.

    Stop the service first. After an error or an interruption the new database is still empty; run the command
    again.
    """
    patient = {"database_timeout": PATIENCE}
    source, target = settings.load(patient), settings.load({**patient, "database_url": to})
    logging.configure(log_format=source.log_format, level="warning", cached=False)
    digests = asyncio.run(_copy(source, target))
    output.show([asdict(digest) for digest in digests], COLUMNS, as_json=as_json)
    say("Both databases have the same content. From now on, serve only the new database, with")
    say("  SESSIONAPI_DATABASE_URL=<the URL given as --to>")
    say(f"  SESSIONAPI_SECRET={_secret(source)}")
    say("and all other settings unchanged.")


async def _copy(source: Settings, target: Settings) -> list[TableDigest]:
    _require_file(source)
    await container.bootstrap(source)  # it refuses a server secret that doesn't decrypt the key ring
    database_url.make_folder(target.effective_database_url)
    for each, version_of in ((source, migrations.check), (target, migrations.migrate)):
        url = each.effective_database_url
        _require_own_schema(url, await version_of(url))
    stores = container.store_of(source), container.store_of(target)
    try:
        with _progress() as progress:
            task = progress.add_task("")
            return await copy(
                *stores,
                lambda table, rows, total: progress.update(
                    task, description=table, advance=rows, total=total
                ),
            )
    finally:
        for store in stores:
            await store.close()


def _progress() -> Progress:
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=not err.is_terminal)


def _require_file(source: Settings) -> None:
    """Refuse a path without a database, because a mistyped path would create an empty one."""
    if path := missing_database(source):
        raise NotFound(f"No database found at {path}. Set SESSIONAPI_DATA_DIR as for the service.")


def _require_own_schema(url: str, version: str) -> None:
    """Refuse the schema of a newer version, because data in its new columns and tables would be lost."""
    if version != migrations.newest():
        raise StartupError(
            f"{database_url.shown(url)} has schema {version}, from a newer version of sessionapi: "
            "copy it with that version"
        )


def _secret(source: Settings) -> str:
    """Describe the server secret that the new database needs, without printing it."""
    if source.secret is None:
        return f'"$(cat {source.data_dir.resolve() / "secret"})"'
    return "<unchanged>"
