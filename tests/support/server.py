"""Server processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.api_client import PASSWORD
from tests.support.settings import environment
from tests.support.waiting import PATIENCE
from tests.support.written import WRITTEN


@dataclass
class Server:
    """A real server process on the folder `data`, at `url`. `log` is everything that it wrote to stderr."""

    process: subprocess.Popen[str]
    data: Path
    url: str
    lines: list[str]
    log: Path

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Send a JSON body."""
        return self._post(path, json=body)

    def sign_up(self, username: str = "ada", **more: Any) -> dict[str, Any]:
        """Create an account over HTTP, on a new device; return its tokens."""
        answer = self.post("/signup", username=username, password=PASSWORD, **more)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def log_in(self, username: str = "ada", **more: Any) -> dict[str, Any]:
        answer = self.post("/login", username=username, password=PASSWORD, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refresh(self, tokens: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self._post("/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=headers)

    def _post(self, path: str, **more: Any) -> httpx.Response:
        # Hashes have a low priority, so they can wait long on a busy machine. Reading no certificates saves
        # 20 ms.
        return httpx.post(f"{self.url}{path}", verify=False, timeout=PATIENCE, **more)

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
