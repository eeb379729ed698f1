"""`sessionapi service-tokens`: credentials of other services."""

from typing import Annotated

import typer

from sessionapi import representations
from sessionapi.cli import output
from sessionapi.cli.context import run
from sessionapi.cli.prompts import say

COLUMNS = ("name", "created_at", "revoked_at")
Name = Annotated[str, typer.Argument(metavar="NAME", help="What the service is called here.")]

app = typer.Typer(
    no_args_is_help=True, help="Credentials of other services: for /revocations and /introspect."
)


@app.command()
def add(name: Name) -> None:
    """Make a service token and print it. This is the only time that it is shown."""
    typer.echo(run(lambda it: it.service_tokens.add(name)))
    say("Keep it: it is not shown again.")


@app.command("list")
def list_service_tokens(as_json: output.AsJson = False) -> None:
    """List the service tokens by name, revoked ones too, the oldest first."""
    found = run(lambda it: it.service_tokens.all())
    output.show([representations.service_token(token) for token in found], COLUMNS, as_json=as_json)


@app.command()
def revoke(name: Name) -> None:
    """Refuse the service token of this name from now on."""
    run(lambda it: it.service_tokens.revoke(name))
    say(f"The service token {name} is revoked.")
