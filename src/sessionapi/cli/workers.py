"""Several worker processes on one socket, with a parent process that replaces those that exit."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import multiprocess
from uvicorn.supervisors import Multiprocess

from sessionapi.errors import StartupError

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable in which prometheus_client finds the directory that the workers share their metrics in.

The library reads it only from the environment, so this module alone writes to the environment.
"""


@contextmanager
def metrics_folder(*, needed: bool) -> Iterator[str | None]:
    """Create the temporary directory in which the workers share their metrics, and remove it at the end.

    Yields its path, or None if it is not needed.

    Raises StartupError if this user can't write to any temporary directory.
    """
    if not needed:
        yield None
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="sessionapi-metrics-")
    except OSError as problem:
        raise StartupError(
            "SESSIONAPI_METRICS=on with several workers needs a temporary directory, but none is writable "
            f"({problem.strerror}). Set TMPDIR to a directory that this user can write."
        ) from problem
    with folder as path:
        os.environ[METRICS_FOLDER] = path  # noqa: TID251 - for the workers, not read here
        yield path


def run(config: uvicorn.Config, listener: socket.socket, metrics: str | None) -> None:
    """Run the workers until this process is stopped. `metrics` is the directory of their metrics, if any."""
    _Parent(config, listener, metrics).run()


class _Parent(Multiprocess):
    def __init__(self, config: uvicorn.Config, listener: socket.socket, metrics: str | None) -> None:
        super().__init__(config, sockets=[listener])
        self._metrics = metrics

    def terminate_all(self) -> None:
        """Close the socket too, because it would accept connections that no worker serves."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have exited, and drop their gauges from the shared metrics."""
        for process in self.processes:
            process.child_conn.close()  # the worker has a copy; without ours, its exit is noticed at once
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            if self._metrics is not None:
                multiprocess.mark_process_dead(pid, self._metrics)
