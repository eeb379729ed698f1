"""Debian's Firefox ESR, driven over WebDriver BiDi, which Firefox itself speaks on a WebSocket.

Playwright drives only a Firefox that it has downloaded, and Debian has no geckodriver.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import eventually, eventually_in_page

FIREFOX = shutil.which("firefox-esr")
NEEDS_FIREFOX = [
    pytest.mark.browser,
    pytest.mark.skipif(FIREFOX is None, reason="Firefox isn't installed: apt-get install firefox-esr"),
]


class CommandFailed(Exception):
    """Firefox refused a command, for example because the page was being replaced by another."""


@dataclass
class Firefox:
    """A browser process and its WebDriver BiDi session."""

    socket: ClientConnection
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == number:
                if message["type"] == "error":
                    raise CommandFailed(message)
                return message["result"]

    @contextmanager
    def profile(self) -> Iterator["FirefoxProfile"]:
        """Yield a profile without cookies and storage; its tabs are closed at the end."""
        context = self.send("browser.createUserContext")["userContext"]
        yield FirefoxProfile(self, context)
        self.send("browser.removeUserContext", userContext=context)


@dataclass
class FirefoxProfile:
    """A user context of WebDriver BiDi, with its own cookies and storage."""

    browser: Firefox
    context: str

    def tab(self, url: str) -> "FirefoxTab":
        created = self.browser.send("browsingContext.create", type="tab", userContext=self.context)
        tab = FirefoxTab(self.browser, created["context"])
        tab.open(url)
        return tab


@dataclass
class FirefoxTab:
    """A tab."""

    browser: Firefox
    context: str

    def open(self, url: str) -> None:
        self.browser.send("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def reload(self) -> None:
        self.browser.send("browsingContext.reload", context=self.context, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, after waiting for its promise."""
        value = self._evaluate(f"(async () => JSON.stringify(await ({expression})))()")
        return json.loads(value["value"]) if "value" in value else None

    def until(self, condition: str) -> None:
        """Wait for a condition of the page, even across a navigation."""

        def holds() -> bool:
            try:
                return self.evaluate(f"Boolean({condition})")
            except CommandFailed:
                return False

        eventually_in_page(condition, holds, self.evaluate)

    def click(self, selector: str) -> None:
        origin = {"type": "element", "element": {"sharedId": self._element(selector)}}
        actions = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._perform({"type": "pointer", "id": "mouse", "actions": actions})

    def type(self, selector: str, text: str) -> None:
        self.click(selector)
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._perform({"type": "key", "id": "keyboard", "actions": keys})

    def _perform(self, source: dict[str, Any]) -> None:
        self.browser.send("input.performActions", context=self.context, actions=[source])

    def _element(self, selector: str) -> str:
        find = f"document.querySelector({json.dumps(selector)})"
        self._evaluate(f"{find}.scrollIntoView({{ block: 'center' }})")
        return str(self._evaluate(find)["sharedId"])

    def _evaluate(self, expression: str) -> dict[str, Any]:
        done = self.browser.send(
            "script.evaluate", expression=expression, target={"context": self.context}, awaitPromise=True
        )
        assert done["type"] == "success", done
        return done["result"]


@contextmanager
def firefox(folder: Path) -> Iterator[Firefox]:
    """Start Firefox without a window on a new profile; all its processes are killed at the end."""
    assert FIREFOX
    profile = folder / "firefox"
    profile.mkdir(parents=True)
    arguments = ["--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    process = subprocess.Popen(
        [FIREFOX, *arguments],
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = eventually(lambda: _port(profile / "WebDriverBiDiServer.json"), 60)
        with connect(f"ws://127.0.0.1:{port}/session", max_size=None, open_timeout=60) as socket:
            browser = Firefox(socket)
            browser.send("session.new", capabilities={})
            yield browser
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _port(file: Path) -> int | None:
    """Return the port that Firefox has written into its profile, as soon as the file is complete."""
    try:
        return int(json.loads(file.read_text())["ws_port"])
    except (FileNotFoundError, ValueError):
        return None
