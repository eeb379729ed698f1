"""`sessionapi keys`: list and change the keys that sign access tokens."""

import asyncio
import math
from typing import Annotated

import typer

from sessionapi import ids, representations
from sessionapi.cli import output
from sessionapi.cli.context import run
from sessionapi.cli.prompts import confirm, say
from sessionapi.container import Container
from sessionapi.errors import Conflict
from sessionapi.models import StoredKey

COLUMNS = ("kid", "algorithm", "state", "created_at", "state_since")

app = typer.Typer(no_args_is_help=True, help="Signing keys.")


@app.command("list")
def list_keys(as_json: output.AsJson = False) -> None:
    """List the keys of the key ring, oldest first."""
    _show(run(lambda it: it.keys.all()), as_json=as_json)


@app.command()
def rotate(
    now: Annotated[
        bool, typer.Option("--now", help="Don't wait until all verifiers have loaded the new key.")
    ] = False,
) -> None:
    """Replace the signing key and print the id of the new one, which is published for JWKS_MAX_AGE first."""
    typer.echo(run(_rotate_now if now else _rotate))


@app.command()
def drop(kid: Annotated[str, typer.Argument(metavar="KID", help="Key id, as printed by keys list.")]) -> None:
    """Refuse all tokens of a leaked key. Every server does so at its next poll (REVOCATION_POLL)."""
    run(lambda it: it.keys.drop(kid))
    say(f"Dropped {kid}. Clients get new tokens at their next refresh.")


@app.command()
def reencrypt() -> None:
    """Encrypt the private keys with the current SECRET, and print how many there were."""
    typer.echo(run(lambda it: it.keys.reencrypt()))


@app.command()
def abandon(yes: Annotated[bool, typer.Option("--yes", help="Skip the prompt.")] = False) -> None:
    """Drop the keys that SECRET cannot decrypt, after it was lost or leaked, and list all keys."""
    confirm("Drop all keys that SECRET cannot decrypt? Their tokens will be refused.", yes=yes)
    _show(run(lambda it: it.keys.all(), abandon_keys=True), as_json=False)


def _show(ring: list[StoredKey], *, as_json: bool) -> None:
    output.show([representations.signing_key(key) for key in ring], COLUMNS, as_json=as_json)


async def _rotate_now(container: Container) -> str:
    return _kid(await container.keys.rotate_now())


async def _rotate(container: Container) -> str:
    """Publish the next key, wait, and activate it. If this is interrupted, a running server completes it."""
    published = await container.keys.publish()
    wait = (container.keys.due_at(published) - container.clock()).total_seconds()
    say(
        f"Published {_kid(published)}. It starts signing in {max(0, math.ceil(wait))} s, "
        "when every cached JWKS contains it."
    )
    while wait > 0:
        await asyncio.sleep(wait)
        wait = (container.keys.due_at(published) - container.clock()).total_seconds()
    promoted = await container.keys.promote()
    ring = await container.keys.all()
    if promoted is None and not any(key.id == published.id and key.state == "active" for key in ring):
        raise Conflict(f"{_kid(published)} was dropped while it was waiting; see: sessionapi keys list")
    return _kid(published)


def _kid(key: StoredKey | None) -> str:
    if key is None:
        raise Conflict("Another process is rotating the keys; see: sessionapi keys list")
    return ids.public("key", key.id)
