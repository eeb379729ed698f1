"""SQLite file: keeps it private from its first byte, and detects if it is replaced while in use.

A process can still write into an open file after it was removed or replaced. SQLite does so, and everything
that it commits there is lost. The log (`-wal`) and its index (`-shm`) belong to the database just as much.
"""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from threading import Lock

import structlog

from sessionapi.errors import Unavailable

log = structlog.get_logger()

PRIVATE = 0o600
COMPANIONS = ("-wal", "-shm", "-journal")
BUSY_TIMEOUT = 10_000
"""Milliseconds that a statement waits for another process's write."""
REPLACED = "The database file was replaced or removed while this process was running. Nothing is stored."
REMEDY = (
    "stop this server (SIGTERM), restore the database, and start it again: see docs/operations.md, "
    "'The database file was replaced'"
)

Identity = tuple[int, int]
"""Device and inode number, which identify the file behind a name."""


def make_private(path: Path) -> None:
    """Create the file if it is missing, and deny other users access to it and its companions.

    Raise OSError for a directory or a device: making `/tmp` private, for example, would break it for other
    users.

    SQLite gives its log, index and journal the mode of the database. An existing file is never opened here,
    because closing it would release the locks that SQLite holds on it in this process.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
    for each in (path, *(Path(f"{path}{suffix}") for suffix in COMPANIONS)):
        with contextlib.suppress(FileNotFoundError):
            _close_to_others(each)


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing file; a missing one is not created."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


class SqliteFile:
    """SQLite file of one store, with a connection that keeps its log in place while the store is open.

    Without that connection, SQLite would remove the log and create another one whenever the pool is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._lock = Lock()
        self._keeper: sqlite3.Connection | None = None
        self._names: tuple[str, ...] = ()
        self._opened: list[Identity] = []
        self._reported = False

    def connect(self) -> sqlite3.Connection:
        """Open another connection to the same file; Unavailable if the file has been replaced."""
        with self._lock:
            if self._keeper is None:
                self._keep()
        connection = connect(self._path)
        try:
            self.check()
        except Unavailable:
            connection.close()
            raise
        return connection

    def check(self) -> None:
        """Raise Unavailable unless the names still refer to the open files. This takes three system calls."""
        try:
            found = [_identity(name) for name in self._names]
        except OSError:
            found = []
        if found == self._opened:
            self._reported = False
            return
        problem = self._problem()
        with self._lock:  # several threads notice it at the same time, and only one reports it
            is_first, self._reported = not self._reported, True
        if is_first:
            log.error("not ready", reason=problem, remedy=REMEDY)
        refusal = Unavailable(REPLACED)
        refusal.cause = problem
        raise refusal

    def close(self) -> None:
        """Release the file, after the pools have been closed."""
        with self._lock:
            if self._keeper is not None:
                self._keeper.close()
                self._keeper = None

    def _keep(self) -> None:
        keeper = connect(self._path)
        try:
            keeper.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
            keeper.execute("PRAGMA journal_mode=WAL")
            keeper.execute("SELECT count(*) FROM sqlite_master")  # which opens the log and its index
            real = os.path.realpath(self._path)
            self._names = (str(self._path), f"{real}-wal", f"{real}-shm")
            self._opened = [_identity(name) for name in self._names]
        except BaseException:
            keeper.close()
            raise
        self._keeper = keeper

    def _problem(self) -> str:
        for name, identity in zip(self._names, self._opened, strict=True):
            try:
                if _identity(name) != identity:
                    return f"{name} was replaced while the server was running"
            except FileNotFoundError:
                return f"{name} was removed while the server was running"
            except OSError as problem:
                return f"{name} cannot be read: {problem.strerror}"
        return f"{self._path} was replaced, and has been put back"


def _identity(name: str) -> Identity:
    found = os.stat(name)  # noqa: PTH116 - twice as fast as pathlib's, and called in every transaction
    return found.st_dev, found.st_ino


def _close_to_others(path: Path) -> None:
    if not path.stat().st_mode & 0o077:
        return
    try:
        path.chmod(PRIVATE)
    except PermissionError:
        log.warning(
            f"other users can read {path}, and this process may not change that; run: chmod 600 {path}"
        )
