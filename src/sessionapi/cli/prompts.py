"""What is said to a person and what is asked of one."""

import sys

import typer
from rich.console import Console

from sessionapi.errors import SessionApiError, Unavailable, ValidationFailed
from sessionapi.logging import escape_unprintable

err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Tell what was done, beside the data."""
    err.print(escape_unprintable(text))


def complain(problem: SessionApiError) -> None:
    """Tell in one line why a command was refused."""
    wrong = "; ".join(f"{each.field}: {each.message}" for each in problem.field_errors)
    cause = f" ({problem.cause})" if isinstance(problem, Unavailable) else ""
    say(f"sessionapi: {wrong or problem.detail}{cause}")


def secret_line(what: str, *, confirmed: bool) -> str:
    """Return a secret: asked for on a terminal, else one line of standard input.

    Never an argument: the list of processes shows those to everybody on the host.
    """
    if sys.stdin.isatty():
        answer: str = typer.prompt(what, hide_input=True, confirmation_prompt=confirmed, err=True)
        return answer
    text = _decoded(sys.stdin.buffer.readline()).removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValidationFailed(f"{what}: send it as one line on standard input.")
    return text


def rest_of_input() -> str:
    """Return all of standard input."""
    return _decoded(sys.stdin.buffer.read())


def confirm(question: str, *, yes: bool) -> None:
    """Go on only after a yes: an option, or an answer on a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValidationFailed(f"{question} There is no terminal to ask on; say --yes.")
    typer.confirm(question, abort=True, err=True)


def _decoded(given: bytes) -> str:
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise ValidationFailed("Standard input is not UTF-8.") from None
