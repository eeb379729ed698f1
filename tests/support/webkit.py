"""Debian's WebKitGTK, the engine of Safari, driven over the W3C WebDriver protocol.

WebKit differs from Chromium and Firefox in one way that matters to us: it drops `Secure` cookies on
http://localhost.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import eventually

DRIVER, DISPLAY = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
NEEDS_WEBKIT = [
    pytest.mark.browser,
    pytest.mark.skipif(
        DRIVER is None or DISPLAY is None,
        reason="WebKitGTK isn't installed: apt-get install webkit2gtk-driver xvfb",
    ),
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of a reference to an element (W3C WebDriver, section 12)."""


@dataclass
class WebKit:
    """A browser window."""

    session: httpx.Client

    def send(self, method: str, path: str, **body: Any) -> Any:
        """Send a command, and return its value."""
        answer = self.session.request(method, path, json=body if method == "POST" else None)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        self.send("POST", "/url", url=url)

    def reload(self) -> None:
        self.send("POST", "/refresh")

    @property
    def url(self) -> str:
        return str(self.send("GET", "/url"))

    def evaluate(self, script: str) -> Any:
        """Return the result of a function with this body."""
        return self.send("POST", "/execute/sync", script=script, args=[])

    def until(self, condition: str) -> None:
        """Wait for a condition of the page, even across a navigation."""

        def holds() -> bool:
            answer = self.session.post(
                "/execute/sync", json={"script": f"return Boolean({condition})", "args": []}
            )
            return answer.status_code == 200 and answer.json()["value"]

        try:
            eventually(holds)
        except AssertionError:
            text = self.evaluate("return `${location.href}\n${document.body.innerText}`")
            raise AssertionError(f"waited for {condition} at {text}") from None

    def type(self, selector: str, text: str) -> None:
        self.send("POST", f"/element/{self._element(selector)}/value", text=text)

    def click(self, selector: str) -> None:
        self.send("POST", f"/element/{self._element(selector)}/click")

    def cookies(self) -> dict[str, dict[str, Any]]:
        return {cookie["name"]: cookie for cookie in self.send("GET", "/cookie")}

    def _element(self, selector: str) -> str:
        return str(self.send("POST", "/element", using="css selector", value=selector)[ELEMENT])


@contextmanager
def webkit(home: Path, **capabilities: Any) -> Iterator[WebKit]:
    """Start WebKitGTK on a separate display and profile; everything ends with the block."""
    assert DRIVER
    assert DISPLAY
    home.mkdir(parents=True, exist_ok=True)
    with _display() as display, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        own = {"DISPLAY": display, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "NO_AT_BRIDGE": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        command = [DRIVER, f"--port={port}", "--host=127.0.0.1"]
        with _started(command, env={**kept, **own}), httpx.Client(timeout=60) as client:
            address = f"http://127.0.0.1:{port}"
            eventually(lambda: _accepts(port))
            answer = client.post(f"{address}/session", json={"capabilities": {"alwaysMatch": capabilities}})
            assert answer.status_code == 200, answer.text
            client.base_url = f"{address}/session/{answer.json()['value']['sessionId']}"
            yield WebKit(client)
            client.delete("")


@contextmanager
def _display() -> Iterator[str]:
    """Start an X server without a screen; it chooses a free display and writes its number."""
    assert DISPLAY
    read, write = os.pipe()
    command = [DISPLAY, "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with _started(command, pass_fds=(write,)), os.fdopen(read) as told:
        os.close(write)
        yield f":{told.readline().strip()}"


@contextmanager
def _started(command: list[str], **options: Any) -> Iterator[None]:
    """Run a process, and end it with all processes that it has started."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **options
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
