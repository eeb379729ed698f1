"""The sizes of a run: `--quick` for a check that everything works, `--large` for the big numbers."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """The sizes of one run. `folder` is for its files, `postgresql` is the URL of a database server."""

    folder: Path
    postgresql: str = ""
    peers: bool = True
    seconds: float = 4
    rounds: int = 3
    few: int = 5_000
    many: int = 300_000
    refreshes: int = 60_000
    logins: int = 5_000

    def place(self, name: str) -> Path:
        """Return a new folder for a part of the run."""
        made = self.folder / name
        made.mkdir(parents=True)
        return made


QUICK = {"seconds": 1, "rounds": 1, "few": 500, "many": 5_000, "refreshes": 3_000, "logins": 300}
LARGE = {"many": 5_000_000, "refreshes": 1_000_000, "logins": 100_000}
