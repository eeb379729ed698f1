"""The command line in the process of the test."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from sessionapi import cli


@dataclass
class Commands:
    """The command line in this process, on the data folder that `make_settings` also uses."""

    data: Path

    def __call__(self, *arguments: str, given: str | bytes = "") -> Result:
        return CliRunner().invoke(cli.app, list(arguments), input=given)

    async def beside(self, *arguments: str, given: str | bytes = "") -> Result:
        """Run a command while the app of the test goes on."""
        return await asyncio.to_thread(self, *arguments, given=given)

    def refused(self, *arguments: str, given: str | bytes = "") -> str:
        """Run a command that must be refused, and return the line with the reason."""
        done = self(*arguments, given=given)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        *before, said = done.stderr.splitlines()
        assert said.startswith("sessionapi: "), done.stderr
        assert all(line.startswith("Created a new database at ") for line in before), done.stderr
        return said.removeprefix("sessionapi: ").strip()
