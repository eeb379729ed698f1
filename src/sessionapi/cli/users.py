"""`sessionapi users`: the accounts."""

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import typer

from sessionapi import ids, logging, representations
from sessionapi.cli import output, prompts
from sessionapi.cli.context import find, run
from sessionapi.container import Container
from sessionapi.errors import ValidationFailed
from sessionapi.models import User
from sessionapi.representations import Members
from sessionapi.sessions.actors import OPERATOR, Caller
from sessionapi.users.accounts import RESET_TTL, Accounts

COLUMNS = ("id", "username", "email", "roles", "disabled_at", "locked", "created_at")

app = typer.Typer(no_args_is_help=True, help="Accounts.")

NewName = Annotated[str, typer.Argument(metavar="NAME", help="The username.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A username, or an id as user_...")]


@app.command()
def add(
    name: NewName,
    email: Annotated[str | None, typer.Option(help="A contact; no login name.")] = None,
    hashed: Annotated[
        bool, typer.Option("--hash", help="What comes is a hash of another system, not a password.")
    ] = False,
) -> None:
    """Create an account and print its id. The password is asked for, or one line of standard input."""
    secret = prompts.secret_line("Hash" if hashed else "Password", confirmed=not hashed)
    password, given_hash = (None, secret) if hashed else (secret, None)
    user = run(lambda parts: parts.accounts.add(name, email, password=password, hashed=given_hash))
    typer.echo(ids.public("user", user.id))


@app.command("list")
def list_users(limit: output.Limit = 100, as_json: output.AsJson = False) -> None:
    """List the accounts, the oldest first."""
    found, more = run(lambda parts: _listed(parts, limit))
    output.show(found, COLUMNS, as_json=as_json, more=more)


@app.command()
def show(name: Name, as_json: output.AsJson = False) -> None:
    """Show one account, its claims and preferences too."""
    told = run(lambda parts: _shown(parts, name))
    if as_json:
        output.show([told], (), as_json=True)
    else:
        rows = [{"member": member, "value": value} for member, value in told.items()]
        output.show(rows, ("member", "value"), as_json=False)


@app.command()
def disable(name: Name) -> None:
    """Let an account log in no more, and end its sessions."""
    user = run(lambda parts: _do(parts, name, Accounts.disable))
    prompts.say(f"Disabled {user.username} and ended its sessions.")


@app.command()
def enable(name: Name) -> None:
    """Let a disabled account log in again."""
    user = run(lambda parts: _do(parts, name, Accounts.enable))
    prompts.say(f"Enabled {user.username}.")


@app.command()
def unlock(name: Name) -> None:
    """Forget the wrong passwords of an account, so that its own is taken everywhere again."""
    user = run(lambda parts: _do(parts, name, Accounts.unlock))
    prompts.say(f"Unlocked {user.username}.")


@app.command()
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Empty an account and end its sessions. The name is free again; nothing brings the account back."""
    prompts.confirm(f"Delete {logging.escape_unprintable(name)} for ever?", yes=yes)
    user = run(lambda parts: _do(parts, name, Accounts.delete))
    prompts.say(f"Deleted {user.username}.")


@app.command("set-roles")
def set_roles(
    name: Name,
    roles: Annotated[list[str] | None, typer.Argument(help="All roles that the account shall have.")] = None,
) -> None:
    """Replace the roles of an account; with none given it has none. `admin` opens /admin."""
    user = run(lambda parts: _change(parts, name, roles=roles or []))
    prompts.say(f"{user.username} has the roles: {', '.join(user.roles) or 'none'}.")


@app.command("set-claims")
def set_claims(
    name: Name,
    claims: Annotated[str, typer.Argument(help="A JSON object, or - to read it from standard input.")],
) -> None:
    """Replace the claims that an account's access tokens carry besides ours, from the next refresh on."""
    given = _json_object(prompts.rest_of_input() if claims == "-" else claims)
    user = run(lambda parts: _change(parts, name, claims=given))
    prompts.say(f"{user.username} has the claims: {json.dumps(user.claims)}")


@app.command("reset-password")
def reset_password(name: Name) -> None:
    """Print a one-time token that sets a new password, and a link to the page that takes it."""
    token, link = run(lambda parts: _reset(parts, name))
    typer.echo(f"Token  {token}")
    typer.echo(f"Link   {link}")
    prompts.say(f"Good once, for {RESET_TTL.seconds // 60} minutes; an earlier one is void.")


async def _listed(parts: Container, limit: int) -> tuple[list[Members], bool]:
    found, more = await output.gather(parts.accounts.page, limit)
    locked = await parts.throttle.locked([each.id for each in found])
    return [representations.administered(each, locked=each.id in locked) for each in found], more


async def _shown(parts: Container, name: str) -> Members:
    user = await find(parts, name)
    return representations.administered(user, locked=bool(await parts.throttle.locked([user.id])))


async def _do(parts: Container, name: str, what: Callable[[Accounts, UUID, Caller], Awaitable[None]]) -> User:
    user = await find(parts, name)
    await what(parts.accounts, user.id, OPERATOR)
    return user


async def _change(parts: Container, name: str, **given: Any) -> User:
    return await parts.accounts.change((await find(parts, name)).id, OPERATOR, given)


async def _reset(parts: Container, name: str) -> tuple[str, str]:
    token = await parts.accounts.make_reset_token((await find(parts, name)).id)
    # Behind a # it stays in the browser: no server and no log between here and the page sees it.
    return token, f"{parts.settings.public_url}/reset-password#token={token}"


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValidationFailed("The claims are not valid JSON.") from None
    if not isinstance(found, dict):
        raise ValidationFailed('The claims must be one JSON object, as in {"plan": "team"}.')
    return found
