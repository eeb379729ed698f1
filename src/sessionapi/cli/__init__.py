"""The command line: the operations of the HTTP API, for users who can read the database and its secret.

Data goes to standard output, and everything else to standard error.
"""

import asyncio
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sessionapi import __version__, ids, representations, settings
from sessionapi.cli import (
    context,
    copy_database,
    keys,
    output,
    prompts,
    serve,
    service_tokens,
    sessions,
    settings_table,
    users,
)
from sessionapi.container import Container
from sessionapi.errors import SessionApiError
from sessionapi.models import Event
from sessionapi.sessions.purge import Purged
from sessionapi.storage import migrations

AUDIT_COLUMNS = ("at", "kind", "user_id", "session_id", "ip", "details")


class Commands(TyperGroup):
    """A command group that reports an error in one line on standard error and exits with status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except SessionApiError as problem:
            prompts.complain(problem)
            raise typer.Exit(1) from problem


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Session management with one-minute JWTs.",
)
app.command()(serve.serve)
app.command()(copy_database.copy_database)
app.add_typer(users.app, name="users")
app.add_typer(sessions.app, name="sessions")
app.add_typer(keys.app, name="keys")
app.add_typer(service_tokens.app, name="service-tokens")


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only check whether the schema is up to date.")
    ] = False,
) -> None:
    """Bring the database schema up to date."""
    url = settings.load().effective_database_url
    version = asyncio.run(migrations.check(url) if check else migrations.migrate(url))
    own = version == migrations.newest()
    typer.echo(
        "The schema is up to date."
        if own
        else f"The schema is {version}, from a newer version of sessionapi. This version can use it."
    )


@app.command()
def purge() -> None:
    """Delete data that is no longer needed, and print the counts. A running server does this too."""
    purged = context.run(_purge)
    typer.echo(f"sessions                {purged.sessions}")
    typer.echo(f"deleted accounts        {purged.users}")
    typer.echo(f"expired password resets {purged.password_resets}")


async def _purge(app: Container) -> Purged:
    await app.marks.tidy()
    return await app.purge.run()


@app.command()
def audit(
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only events of this user. For a deleted user, give the id."),
    ] = None,
    limit: output.Limit = 100,
    as_json: output.AsJson = False,
) -> None:
    """List the audit log, newest first."""
    found, more = context.run(lambda it: _audit(it, user, limit))
    output.show([representations.event(each) for each in found], AUDIT_COLUMNS, as_json=as_json, more=more)


@app.command("settings")
def show_settings() -> None:
    """Print all settings with their defaults, as a Markdown table."""
    typer.echo(settings_table.table())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


async def _audit(it: Container, name: str | None, limit: int) -> tuple[list[Event], bool]:
    user_id = None if name is None else ids.parse("user", name) or (await context.find(it, name)).id
    return await output.collect_pages(lambda size, before: it.accounts.events(size, before, user_id), limit)
