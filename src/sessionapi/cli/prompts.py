"""Messages and prompts on the terminal."""

import sys

import typer
from rich.console import Console

from sessionapi.errors import SessionApiError, Unavailable, ValidationFailed
from sessionapi.logging import escape_unprintable

err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print a message to standard error, so that standard output holds only data."""
    err.print(escape_unprintable(text))


def complain(problem: SessionApiError) -> None:
    """Print in one line why a command failed."""
    wrong = "; ".join(f"{each.field}: {each.message}" for each in problem.field_errors)
    cause = f" ({problem.cause})" if isinstance(problem, Unavailable) else ""
    say(f"sessionapi: {wrong or problem.detail}{cause}")


def secret_line(what: str, *, confirmed: bool) -> str:
    """Return a secret from a prompt on the terminal, or else from one line of standard input.

    A secret is never an argument, because all users of the host can see those in the list of processes.
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
    """Continue only if `yes` is set or the user agrees on the terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValidationFailed(f"{question} Without a terminal, confirm with --yes.")
    typer.confirm(question, abort=True, err=True)


def _decoded(given: bytes) -> str:
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise ValidationFailed("Standard input is not UTF-8. Send UTF-8 text.") from None
