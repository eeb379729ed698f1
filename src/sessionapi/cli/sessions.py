"""`sessionapi sessions`: who is logged in, and ending that."""

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
"""As many as a terminal of 80 columns has room for beside two ids; JSON has all."""
SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "": 1}
LONGEST = 36_500 * 86_400
PROGRESS = 10_000
"""Sessions between two lines of progress."""

app = typer.Typer(no_args_is_help=True, help="Sessions.")


@app.command("list")
def list_sessions(
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this user.")] = None,
    limit: output.Limit = 100,
    as_json: output.AsJson = False,
) -> None:
    """List the living sessions: of one user the newest first, or user by user."""
    found, more = run(lambda parts: _list(parts, user, limit))
    output.show([_told(each) for each in found], COLUMNS, as_json=as_json, more=more)


@app.command()
def revoke(
    session: Annotated[
        str | None, typer.Argument(metavar="ID", help="One session, as sess_..., with its --user.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="All sessions of this user, or the one of ID.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All sessions of everybody.")] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Those that began longer ago: 30d, 12h, 90m, seconds.")
    ] = None,
) -> None:
    """End sessions at once, and print how many there were."""
    one_user = session is not None or user is not None
    if [one_user, everybody, older_than is not None].count(True) != 1:
        raise ValidationFailed("Say which: one of ID with --user, --user, --all, --older-than.")
    if session is not None and user is None:
        raise ValidationFailed(f"Say whose session {session} is: --user NAME.")
    span = None if older_than is None else _span(older_than)
    typer.echo(run(lambda parts: _revoke(parts, session, user, span)))


async def _list(parts: Container, name: str | None, limit: int) -> tuple[list[Session], bool]:
    if name is None:
        return await output.gather(parts.all_sessions.page, limit)
    user = await find(parts, name)
    return await output.gather(lambda size, before: parts.sessions.devices(user.id, size, before), limit)


async def _revoke(parts: Container, session: str | None, name: str | None, span: timedelta | None) -> int:
    if name is None:
        return await parts.all_sessions.revoke("revoked_by_admin", span, _Progress())
    user = await find(parts, name)
    if session is None:
        return await parts.sessions.revoke_all(user.id, "revoked_by_admin", OPERATOR)
    none_such = NotFound(f"{user.username} has no living session {session}.")
    session_id = ids.parse("sess", session)
    if session_id is None:
        raise none_such
    try:
        await parts.sessions.revoke(user.id, session_id, "revoked_by_admin", OPERATOR)
    except NotFound:
        raise none_such from None
    return 1


class _Progress:
    """Print how many sessions were ended so far, each time that there are many more."""

    def __init__(self) -> None:
        self._printed = 0

    def __call__(self, ended: int) -> None:
        if ended >= self._printed + PROGRESS:
            self._printed = ended
            say(f"{ended} sessions ended so far.")


def _told(session: Session) -> Members:
    return {"user_id": ids.public("user", session.user_id), **representations.session(session)}


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([dhms]?)", text)
    seconds = int(found[1]) * SECONDS[found[2]] if found else LONGEST + 1
    if seconds > LONGEST:
        raise ValidationFailed("A span is a number of seconds, or as in 30d, 12h, 90m; at most 36500d.")
    return timedelta(seconds=seconds)
