"""The results of a run: rows with their targets, shown on the terminal and written as Markdown."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

LIBRARIES = (
    "sessionapi",
    "fastapi",
    "starlette",
    "uvicorn",
    "pydantic",
    "sqlalchemy",
    "pyjwt",
    "argon2-cffi",
)

WIDTH = 150
"""Columns of the table if the terminal has fewer, or if there isn't one."""


@dataclass(frozen=True)
class Row:
    """One claim: the target, the measurement, and whether the target was reached (None without a target)."""

    what: str
    target: str
    measured: str
    reached: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "NO", None: ""}[self.reached]


@dataclass(frozen=True)
class Bar:
    """One bar of a chart."""

    name: str
    value: float
    ours: bool = False


@dataclass
class Results:
    """The rows in order, the bars of the charts, and the measures that could not be taken."""

    rows: list[Row] = field(default_factory=list)
    protected: list[Bar] = field(default_factory=list)
    storm: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def show(rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Print the table."""
    table = Table("what", "target", "measured", "reached", title="sessionapi, measured", show_lines=False)
    for row in rows:
        style = "red" if row.reached is False else ""
        table.add_row(row.what, row.target, row.measured, row.verdict, style=style)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    for note in notes:
        console.print(f"- {note}")


def markdown(results: Results, command: str) -> str:
    """Return the results as a page."""
    lines = [
        "# Results",
        "",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; [how it is measured](README.md).",
        "Compare ratios: they come from one run on one machine. The other numbers are those of that machine.",
        "",
        f"{machine()}",
        "",
        "| what | target | measured | reached |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.target} | {row.measured} | {row.verdict} |" for row in results.rows),
        "",
        *(f"- {note}" for note in results.notes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def machine() -> str:
    """Return one line about the machine and the versions of this run."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return f"{_processor()}, Linux {platform.release()}, Python {platform.python_version()}; {versions}."


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0] if names else platform.machine()}"
