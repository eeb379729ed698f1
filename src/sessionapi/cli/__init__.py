"""The command line: the same operations that HTTP has, for whoever may read the database and its secret.

Data goes to standard output, all else to standard error.
"""

import asyncio
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sessionapi import __version__, settings
from sessionapi.cli import serve, terminal
from sessionapi.errors import SessionApiError
from sessionapi.storage import migrations


class Commands(TyperGroup):
    """Commands whose refusals are one line on standard error and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except SessionApiError as problem:
            terminal.complain(problem)
            raise typer.Exit(1) from problem


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sessions that last, on one-minute JWTs.",
)
app.command()(serve.serve)


def main() -> None:
    """Run the command that the process was started with."""
    app()


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the schema is up to date.")
    ] = False,
) -> None:
    """Bring the database's schema up to date."""
    url = settings.load().effective_database_url
    asyncio.run(migrations.check(url) if check else migrations.migrate(url))
    typer.echo("The schema is up to date.")


@app.command("settings")
def show_settings() -> None:
    """Print all settings with their defaults, as a Markdown table."""
    typer.echo(settings.table())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
