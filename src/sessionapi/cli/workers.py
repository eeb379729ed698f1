"""Several worker processes on one socket, under a parent that replaces those that die."""

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
"""Where the workers count, so that each can tell the sum; prometheus_client looks for it by this name."""


@contextmanager
def metrics_folder(*, needed: bool) -> Iterator[None]:
    """Make the temporary directory in which the workers count, and remove it at the end.

    Raise StartupError if there is no directory that this user can write.
    """
    if not needed:
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="sessionapi-metrics-")
    except OSError as problem:
        raise StartupError(
            "SESSIONAPI_METRICS=on with several workers needs a temporary directory, and none can be written "
            f"({problem.strerror}). Set TMPDIR to a directory that this user can write."
        ) from problem
    with folder as path:
        os.environ[METRICS_FOLDER] = path  # noqa: TID251 - for the workers, not read here
        yield


def run(config: uvicorn.Config, listener: socket.socket) -> None:
    """Run the workers until this process is stopped."""
    _Parent(config, sockets=[listener]).run()


class _Parent(Multiprocess):
    def terminate_all(self) -> None:
        """Let go of the socket with the workers: else it would take connections that nobody answers."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died; what a dead one had under way is under way no more."""
        for process in self.processes:
            process.child_conn.close()  # the worker has its own: so a dead one's end is seen, not waited for
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            if METRICS_FOLDER in os.environ:  # noqa: TID251
                multiprocess.mark_process_dead(pid)
