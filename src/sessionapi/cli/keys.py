"""`sessionapi keys`: what signs access tokens, and changing it."""

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
    """List the keys of the ring, the oldest first."""
    _show(run(lambda it: it.keys.all()), as_json=as_json)


@app.command()
def rotate(
    now: Annotated[
        bool, typer.Option("--now", help="Don't wait until everybody who caches the JWKS knows the new key.")
    ] = False,
) -> None:
    """Replace the key that signs, and print the new one's id. It is published first, for JWKS_MAX_AGE."""
    typer.echo(run(_rotate_now if now else _rotate))


@app.command()
def drop(kid: Annotated[str, typer.Argument(metavar="KID", help="As in: keys list.")]) -> None:
    """Refuse all tokens of a leaked key, everywhere, within a second of the servers' poll."""
    run(lambda it: it.keys.drop(kid))
    say(f"{kid} is dropped. Clients get new tokens at their next refresh.")


@app.command()
def reencrypt() -> None:
    """Seal the private keys under the present SECRET, and print how many there were."""
    typer.echo(run(lambda it: it.keys.reencrypt()))


@app.command()
def abandon(yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Drop the keys that SECRET doesn't open, for it is lost, or leaked with the database; list all."""
    confirm("Drop all keys that this secret doesn't open? Their tokens are refused from then on.", yes=yes)
    _show(run(lambda it: it.keys.all(), abandon_keys=True), as_json=False)


def _show(ring: list[StoredKey], *, as_json: bool) -> None:
    output.show([representations.signing_key(key) for key in ring], COLUMNS, as_json=as_json)


async def _rotate_now(parts: Container) -> str:
    return _kid(await parts.keys.rotate_now())


async def _rotate(parts: Container) -> str:
    """Publish the next key, wait, let it sign. A running server goes on with it if this is interrupted."""
    published = await parts.keys.publish()
    wait = (parts.keys.due_at(published) - parts.clock()).total_seconds()
    say(f"{_kid(published)} is published; it signs in {max(0, math.ceil(wait))} s, known to every cache.")
    while wait > 0:
        await asyncio.sleep(wait)
        wait = (parts.keys.due_at(published) - parts.clock()).total_seconds()
    promoted = await parts.keys.promote()
    ring = await parts.keys.all()
    if promoted is None and not any(key.id == published.id and key.state == "active" for key in ring):
        raise Conflict(f"{_kid(published)} was taken away meanwhile; see: sessionapi keys list")
    return _kid(published)


def _kid(key: StoredKey | None) -> str:
    if key is None:
        raise Conflict("Somebody else is rotating the keys at this moment; see: sessionapi keys list")
    return ids.public("key", key.id)
