"""The processes that are measured: each server runs on one core and ends with its block."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

SERVER_CORE = "0"
LOAD_CORE = "1"
ALL_CORES = "0,1"
PATIENCE = 60
"""Seconds until the first response of a server, and until that of one that is slow to start."""
PAGE = os.sysconf("SC_PAGE_SIZE")
HOST = "127.0.0.1"


class NotRunning(Exception):
    """A server didn't start; the text has the end of its log."""


@dataclass(frozen=True)
class Process:
    """A running server: its URL and its log."""

    popen: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def resident_mb(self) -> float:
        """Return the resident memory of the process itself, in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE / 1e6


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    log: Path,
    *,
    ready: str = "/protected",
    cores: str = SERVER_CORE,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a server until the block ends. `{port}` in the command and the environment becomes a free port.

    It is ready when `ready` returns anything below 500. It leads a process group, so that its workers end
    with it.
    """
    port = str(free_port())
    names = {name: value.replace("{port}", port) for name, value in (environment or {}).items()}
    with log.open("ab") as output:
        popen = subprocess.Popen(
            ["taskset", "-c", cores, *(part.replace("{port}", port) for part in command)],
            env={**_own_environment(), **names},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    process = Process(popen, f"http://{HOST}:{port}", log)
    try:
        _wait(process, ready)
        yield process
    finally:
        _stop(process)


def pin(pid: int, core: str) -> None:
    """Move a running process, its children and the processes that it starts from now on to one core."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(each, {int(core)})


def _own_environment() -> dict[str, str]:
    """Return the environment without settings of the service and without this program's Python path."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SESSIONAPI_")}


def _wait(process: Process, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.popen.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(process.url + path, timeout=5).status_code < 500:
                return
        time.sleep(0.01)
    raise NotRunning(f"{process.popen.args} doesn't answer: {_end_of(process.log)}")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:]


def _stop(process: Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(15)
            return
