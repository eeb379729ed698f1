"""`sessionapi sessions`: list sessions and end them."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from sessionapi import ids, representations
from sessionapi.cli import output
from sessionapi.cli.context import find, run
from sessionapi.cli.prompts import say
from sessionapi.container import Container
from sessionapi.errors import NotFound, ValidationFailed
from sessionapi.models import Session
from sessionapi.representations import Members
from sessionapi.sessions.actors import OPERATOR

COLUMNS = ("user_id", "id", "device_name", "ip", "created_at", "last_seen_at")
"""The fields that fit next to two ids on a terminal of 80 columns. JSON has all fields."""
SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "": 1}
LONGEST = 36_500 * 86_400
PROGRESS = 10_000
"""Number of sessions between two progress messages."""

app = typer.Typer(no_args_is_help=True, help="Sessions.")


@app.command("list")
def list_sessions(
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only sessions of this user.")] = None,
    limit: output.Limit = 100,
    as_json: output.AsJson = False,
) -> None:
    """List active sessions, newest first with --user, else user by user."""
    found, more = run(lambda container: _list(container, user, limit))
    output.show([_represent(each) for each in found], COLUMNS, as_json=as_json, more=more)


@app.command()
def revoke(
    session: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="One session (sess_...), with the --user it belongs to."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="All sessions of this user, or the one given as ID.")
    ] = None,
    all_users: Annotated[bool, typer.Option("--all", help="All sessions of all users.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Sessions older than this: 30d, 12h, 90m or seconds."),
    ] = None,
) -> None:
    """End sessions immediately, and print how many there were."""
    one_user = session is not None or user is not None
    if [one_user, all_users, older_than is not None].count(True) != 1:
        raise ValidationFailed("Give exactly one: ID with --user, --user alone, --all or --older-than.")
    if session is not None and user is None:
        raise ValidationFailed(f"Give the user of session {session} with --user NAME.")
    span = None if older_than is None else _span(older_than)
    typer.echo(run(lambda container: _revoke(container, session, user, span)))


async def _list(container: Container, name: str | None, limit: int) -> tuple[list[Session], bool]:
    if name is None:
        return await output.collect_pages(container.all_sessions.page, limit)
    user = await find(container, name)
    return await output.collect_pages(
        lambda size, before: container.sessions.list_active(user.id, size, before), limit
    )


async def _revoke(container: Container, session: str | None, name: str | None, span: timedelta | None) -> int:
    if name is None:
        return await container.all_sessions.revoke("revoked_by_admin", span, _Progress())
    user = await find(container, name)
    if session is None:
        return await container.sessions.revoke_all(user.id, "revoked_by_admin", OPERATOR)
    not_found = NotFound(f"{user.username} has no active session {session}.")
    session_id = ids.parse("sess", session)
    if session_id is None:
        raise not_found
    try:
        await container.sessions.revoke(user.id, session_id, "revoked_by_admin", OPERATOR)
    except NotFound:
        raise not_found from None
    return 1


class _Progress:
    """Prints how many sessions were ended so far, every `PROGRESS` sessions."""

    def __init__(self) -> None:
        self._printed = 0

    def __call__(self, ended: int) -> None:
        if ended >= self._printed + PROGRESS:
            self._printed = ended
            say(f"{ended} sessions ended so far.")


def _represent(session: Session) -> Members:
    return {"user_id": ids.public("user", session.user_id), **representations.session(session)}


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([dhms]?)", text)
    seconds = int(found[1]) * SECONDS[found[2]] if found else LONGEST + 1
    if seconds > LONGEST:
        raise ValidationFailed(
            "SPAN must be a number of seconds, or a number with a unit (30d, 12h, 90m), at most 36500d."
        )
    return timedelta(seconds=seconds)
