"""`sessionapi service-tokens`: manage the credentials of other services."""

from typing import Annotated

import typer

from sessionapi import representations
from sessionapi.cli import output
from sessionapi.cli.context import run
from sessionapi.cli.prompts import say

COLUMNS = ("name", "created_at", "revoked_at")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name for the other service.")]

app = typer.Typer(
    no_args_is_help=True, help="Credentials of other services, for /revocations and /introspect."
)


@app.command()
def add(name: Name) -> None:
    """Create a service token and print it. It is shown only this once."""
    typer.echo(run(lambda it: it.service_tokens.add(name)))
    say("Store this token now. It is not shown again.")


@app.command("list")
def list_service_tokens(as_json: output.AsJson = False) -> None:
    """List the service tokens, oldest first, including revoked ones."""
    found = run(lambda it: it.service_tokens.all())
    output.show([representations.service_token(token) for token in found], COLUMNS, as_json=as_json)


@app.command()
def revoke(name: Name) -> None:
    """Revoke the service token with this name."""
    run(lambda it: it.service_tokens.revoke(name))
    say(f"Revoked the service token {name}.")
