"""`sessionapi users`: manage accounts."""

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
Name = Annotated[str, typer.Argument(metavar="NAME", help="A username or an id (user_...).")]


@app.command()
def add(
    name: NewName,
    email: Annotated[str | None, typer.Option(help="Contact address; it can't be used to log in.")] = None,
    hashed: Annotated[
        bool, typer.Option("--hash", help="The input is a password hash from another system, not a password.")
    ] = False,
) -> None:
    """Create an account and print its id. The password comes from a prompt or a line of standard input."""
    secret = prompts.secret_line("Hash" if hashed else "Password", confirmed=not hashed)
    password, given_hash = (None, secret) if hashed else (secret, None)
    user = run(lambda container: container.accounts.add(name, email, password=password, hashed=given_hash))
    typer.echo(ids.public("user", user.id))


@app.command("list")
def list_users(limit: output.Limit = 100, as_json: output.AsJson = False) -> None:
    """List the accounts, oldest first."""
    found, more = run(lambda container: _listed(container, limit))
    output.show(found, COLUMNS, as_json=as_json, more=more)


@app.command()
def show(name: Name, as_json: output.AsJson = False) -> None:
    """Show one account, including its claims and preferences."""
    account = run(lambda container: _shown(container, name))
    if as_json:
        output.show([account], (), as_json=True)
    else:
        rows = [{"field": field, "value": value} for field, value in account.items()]
        output.show(rows, ("field", "value"), as_json=False)


@app.command()
def disable(name: Name) -> None:
    """Disable logins to an account and end its sessions."""
    user = run(lambda container: _do(container, name, Accounts.disable))
    prompts.say(f"Disabled {user.username} and ended its sessions.")


@app.command()
def enable(name: Name) -> None:
    """Allow logins to a disabled account again."""
    user = run(lambda container: _do(container, name, Accounts.enable))
    prompts.say(f"Enabled {user.username}.")


@app.command()
def unlock(name: Name) -> None:
    """Reset the wrong-password counters of an account, so that it can log in everywhere again."""
    user = run(lambda container: _do(container, name, Accounts.unlock))
    prompts.say(f"Unlocked {user.username}.")


@app.command()
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Skip the prompt.")] = False) -> None:
    """Erase an account and end its sessions. This can't be undone; the name can be taken again."""
    prompts.confirm(f"Delete {logging.escape_unprintable(name)} permanently?", yes=yes)
    user = run(lambda container: _do(container, name, Accounts.delete))
    prompts.say(f"Deleted {user.username}.")


@app.command("set-roles")
def set_roles(
    name: Name,
    roles: Annotated[list[str] | None, typer.Argument(help="All roles of the account from now on.")] = None,
) -> None:
    """Replace the roles of an account, or remove all if none are given. The role admin can use /admin."""
    user = run(lambda container: _change(container, name, roles=roles or []))
    prompts.say(f"Roles of {user.username}: {', '.join(user.roles) or 'none'}")


@app.command("set-claims")
def set_claims(
    name: Name,
    claims: Annotated[str, typer.Argument(help="A JSON object, or - to read it from standard input.")],
) -> None:
    """Replace the additional claims in an account's access tokens, from the next refresh on."""
    given = _json_object(prompts.rest_of_input() if claims == "-" else claims)
    user = run(lambda container: _change(container, name, claims=given))
    prompts.say(f"Claims of {user.username}: {json.dumps(user.claims)}")


@app.command("reset-password")
def reset_password(name: Name) -> None:
    """Print a one-time token that sets a new password, and a link to the page that accepts it."""
    token, link = run(lambda container: _reset(container, name))
    typer.echo(f"Token  {token}")
    typer.echo(f"Link   {link}")
    prompts.say(f"Valid once, for {RESET_TTL.seconds // 60} minutes. Earlier tokens are no longer valid.")


async def _listed(container: Container, limit: int) -> tuple[list[Members], bool]:
    found, more = await output.collect_pages(container.accounts.page, limit)
    locked = await container.throttle.locked([each.id for each in found])
    return [representations.administered(each, locked=each.id in locked) for each in found], more


async def _shown(container: Container, name: str) -> Members:
    user = await find(container, name)
    return representations.administered(user, locked=bool(await container.throttle.locked([user.id])))


async def _do(
    container: Container, name: str, what: Callable[[Accounts, UUID, Caller], Awaitable[None]]
) -> User:
    user = await find(container, name)
    await what(container.accounts, user.id, OPERATOR)
    return user


async def _change(container: Container, name: str, **given: Any) -> User:
    return await container.accounts.change((await find(container, name)).id, OPERATOR, given)


async def _reset(container: Container, name: str) -> tuple[str, str]:
    token = await container.accounts.make_reset_token((await find(container, name)).id)
    # After the # it stays in the browser, so no server, proxy or log receives it.
    return token, f"{container.settings.public_url}/reset-password#token={token}"


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValidationFailed(
            'The claims are not valid JSON. Give a JSON object, such as {"plan": "team"}.'
        ) from None
    if not isinstance(found, dict):
        raise ValidationFailed('The claims must be one JSON object, such as {"plan": "team"}.')
    return found
