"""Server processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.support.api_client import ApiClient
from tests.support.settings import environment
from tests.support.waiting import PATIENCE
from tests.support.written import WRITTEN

NEW_CONNECTION = partial(httpx.request, verify=False, timeout=PATIENCE)
"""Send a request as a new client does, without cookies. Skipping the CA certificates saves 20 ms."""


class Server(ApiClient):
    """A real server process on the folder `data`, at `url`. `log` is everything that it wrote to stderr."""

    def __init__(
        self, process: subprocess.Popen[str], data: Path, url: str, lines: list[str], log: Path
    ) -> None:
        super().__init__(NEW_CONNECTION, url)
        self.process, self.data, self.lines, self.log = process, data, lines, log

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(
    data_dir: Path, *arguments: str, prefix: tuple[str, ...] = (), **settings: Any
) -> Iterator[Server]:
    """Run `sessionapi serve --port 0` as a separate process until the block ends.

    `prefix` is put before the command (strace). The process leads a group, so that its workers end with it.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    log = data_dir.parent / f"{data_dir.name}.log"
    command = [*prefix, sys.executable, "-m", "sessionapi", "serve", "--port", "0", *arguments]
    with log.open("a") as stderr:
        process = subprocess.Popen(
            command,
            env=environment(data_dir, **settings),
            cwd=data_dir.parent,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip() for _ in range(3)]
    found = re.search(r"http://\S+", lines[0])
    assert found, f"no address in {lines}: {log.read_text()}"
    server = Server(process, data_dir, found.group(), lines, log)
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        process.stdout.close()
        WRITTEN.add("the log of a server", log.read_text())
