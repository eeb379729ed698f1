"""A Chromium of the tests' own, over the DevTools protocol alone.

Playwright keeps every tab visible, and a visible tab can't be frozen; and what is killed here is a process
whose id we know.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.browser import ARGUMENTS, CHROMIUM
from tests.conftest import eventually


@dataclass
class Tab:
    """A tab, driven by its own connection."""

    wire: ClientConnection
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.wire.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self.wire.recv(timeout=60))
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]

    def evaluate(self, call: str) -> Any:
        """Return what an expression leads to, waiting for its promise."""
        done = self.send("Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, test: str, seconds: float = 30) -> None:
        eventually(lambda: self.evaluate(f"Boolean({test})"), seconds)

    def freeze(self) -> None:
        self.until("document.visibilityState === 'hidden'")
        self.send("Page.setWebLifecycleState", state="frozen")

    def thaw(self) -> None:
        self.send("Page.setWebLifecycleState", state="active")


@dataclass
class Chromium:
    """A browser process and its profile."""

    process: subprocess.Popen[bytes]
    port: int
    wires: ExitStack

    def tab(self, url: str) -> Tab:
        """Open a tab in front of the others."""
        made = httpx.put(f"http://127.0.0.1:{self.port}/json/new?{url}").json()
        return Tab(self.wires.enter_context(connect(made["webSocketDebuggerUrl"], max_size=None)))

    def kill(self) -> None:
        """End it as a power cut does: at once, and all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        """End it as people do: it writes everything to the disk."""
        if self.process.poll() is None:
            version = httpx.get(f"http://127.0.0.1:{self.port}/json/version").json()
            with connect(version["webSocketDebuggerUrl"]) as wire:
                wire.send(json.dumps({"id": 1, "method": "Browser.close"}))
                self.process.wait(30)


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Start Chromium on a profile; whatever is left of it at the end is killed."""
    told = profile / "DevToolsActivePort"
    told.unlink(missing_ok=True)
    assert CHROMIUM
    process = subprocess.Popen(
        [CHROMIUM, "--headless", *ARGUMENTS, f"--user-data-dir={profile}", "--remote-debugging-port=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: told.exists() and told.read_text().count("\n"))
        with ExitStack() as wires:
            yield Chromium(process, int(told.read_text().split("\n")[0]), wires)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
