"""The command line, in the process of the test and on a terminal."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from sessionapi import cli
from tests.support.settings import environment


@dataclass
class Commands:
    """The command line in this process, on the data folder that `make_settings` also uses."""

    data: Path

    def __call__(self, *arguments: str, given: str | bytes = "") -> Result:
        return CliRunner().invoke(cli.app, list(arguments), input=given)

    async def beside(self, *arguments: str, given: str | bytes = "") -> Result:
        """Run a command while the app of the test keeps running."""
        return await asyncio.to_thread(self, *arguments, given=given)

    def refused(self, *arguments: str, given: str | bytes = "") -> str:
        """Run a command that must be refused, and return the line with the reason."""
        done = self(*arguments, given=given)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        *before, said = done.stderr.splitlines()
        assert said.startswith("sessionapi: "), done.stderr
        assert all(line.startswith("Created a new database at ") for line in before), done.stderr
        return said.removeprefix("sessionapi: ").strip()


def talk(data: Path, *arguments: str, answers: tuple[tuple[str, str], ...] = ()) -> tuple[int, str]:
    """Run a command on a terminal and type a line after each prompt; return its status and its output.

    The space after a prompt is written once the terminal no longer discards typed input.
    """
    ours, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sessionapi", *arguments],
        env=environment(data),
        cwd=data.parent,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    said, seen = "", 0
    try:
        for prompt, answer in answers:
            while prompt not in said[seen:]:
                said += os.read(ours, 4096).decode()
            seen = len(said)
            os.write(ours, answer.encode() + b"\n")
        while more := _read(ours):
            said += more
    finally:
        os.close(ours)
    return process.wait(30), said


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # the other end is closed, so the process has ended
        return ""
