"""A separate Chromium for the tests, driven over the DevTools protocol alone.

Playwright keeps every tab visible, and a visible tab can't be frozen. The tests also need the id of the
browser process, to kill it.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.browser import ARGUMENTS, CHROMIUM
from tests.support.waiting import eventually

NO_PAGE = ("Inspected target navigated or closed", "Cannot find default execution context")
"""Errors of Chromium while one page replaces another in a tab."""


class PageLeft(Exception):
    """The page that was to evaluate an expression was being replaced by another."""


@dataclass
class Tab:
    """A tab, driven over a separate connection."""

    wire: ClientConnection
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.wire.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self.wire.recv(timeout=60))
            if said.get("id") == number:
                if said.get("error", {}).get("message") in NO_PAGE:
                    raise PageLeft
                assert "error" not in said, said
                return said["result"]

    def evaluate(self, call: str) -> Any:
        """Return the value of an expression, after waiting for its promise."""
        done = self.send("Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, test: str, seconds: float = 30) -> None:
        """Wait until a test holds, in whatever page the tab then shows."""

        def holds() -> bool:
            try:
                return self.evaluate(f"Boolean({test})")
            except PageLeft:
                return False

        eventually(holds, seconds)

    def navigate(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def back(self) -> None:
        """Return to the page before, as the back button does."""
        history = self.send("Page.getNavigationHistory")
        entry = history["entries"][history["currentIndex"] - 1]
        self.send("Page.navigateToHistoryEntry", entryId=entry["id"])

    def freeze(self) -> None:
        self.until("document.visibilityState === 'hidden'")
        self.send("Page.setWebLifecycleState", state="frozen")

    def thaw(self) -> None:
        self.send("Page.setWebLifecycleState", state="active")


@dataclass
class Chromium:
    """A browser process and its profile."""

    process: subprocess.Popen[bytes]
    address: str
    wires: ExitStack
    whole: Tab

    def new_profile(self) -> str:
        """Return the id of a new browser context, which acts like another profile."""
        return str(self.whole.send("Target.createBrowserContext")["browserContextId"])

    def tab(self, url: str, **whose: str) -> Tab:
        """Open a tab in front of the others, in the profile or in `browserContextId=`."""
        made = self.whole.send("Target.createTarget", url=url, **whose)["targetId"]
        return Tab(self.wires.enter_context(connect(f"{self.address}/devtools/page/{made}", max_size=None)))

    def kill(self) -> None:
        """Kill the browser and all its processes at once, as a power cut does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        """Close the browser as a user does, so that it writes everything to the disk."""
        self.whole.send("Browser.close")
        self.process.wait(30)


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Start Chromium on a profile; all its processes are killed at the end."""
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
        port, path = eventually(lambda: told.exists() and re.findall(r"\A(\d+)\n(\S+)", told.read_text()))[0]
        address = f"ws://127.0.0.1:{port}"
        with ExitStack() as wires:
            whole = Tab(wires.enter_context(connect(address + path, max_size=None)))
            yield Chromium(process, address, wires, whole)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
