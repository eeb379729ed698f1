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

from tests.support.ports import free_port
from tests.support.waiting import eventually, eventually_in_page

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
    """A running WebKitWebDriver, which starts a browser for each session."""

    driver: httpx.Client

    @contextmanager
    def profile(self) -> Iterator["WebKitProfile"]:
        """Yield a profile without cookies and storage; its tabs are closed at the end."""
        session = WebKitProfile(self.driver)
        session.path = f"/session/{session.send('POST', '/session', capabilities={})['sessionId']}"
        yield session
        session.send("DELETE", "")


@dataclass
class WebKitProfile:
    """A WebDriver session. Its commands go to one tab at a time."""

    driver: httpx.Client
    path: str = ""
    is_used: bool = False

    def tab(self, url: str) -> "WebKitTab":
        """Open a tab with a page. The first one is there from the beginning."""
        handle = self.send("POST", "/window/new", type="tab")["handle"] if self.is_used else None
        self.is_used = True
        tab = WebKitTab(self, handle or self.send("GET", "/window"))
        tab.open(url)
        return tab

    def request(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.driver.request(method, self.path + path, json=body if method == "POST" else None)

    def send(self, method: str, path: str, **body: Any) -> Any:
        """Send a command, and return its value."""
        response = self.request(method, path, body)
        assert response.status_code == 200, response.text
        return response.json()["value"]


@dataclass
class WebKitTab:
    """A tab."""

    profile: WebKitProfile
    handle: str

    def send(self, method: str, path: str, **body: Any) -> Any:
        """Send a command to this tab, and return its value."""
        self.profile.send("POST", "/window", handle=self.handle)
        return self.profile.send(method, path, **body)

    def open(self, url: str) -> None:
        self.send("POST", "/url", url=url)

    def reload(self) -> None:
        self.send("POST", "/refresh")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, after waiting for its promise."""
        return self.send("POST", "/execute/sync", script=f"return {expression}", args=[])

    def until(self, condition: str) -> None:
        """Wait for a condition of the page, even across a navigation."""
        script = {"script": f"return Boolean({condition})", "args": []}

        def holds() -> bool:
            self.profile.send("POST", "/window", handle=self.handle)
            response = self.profile.request("POST", "/execute/sync", script)
            return response.status_code == 200 and response.json()["value"]

        eventually_in_page(condition, holds, self.evaluate)

    def click(self, selector: str) -> None:
        self.send("POST", f"/element/{self._element(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.send("POST", f"/element/{self._element(selector)}/value", text=text)

    def cookies(self) -> dict[str, dict[str, Any]]:
        return {cookie["name"]: cookie for cookie in self.send("GET", "/cookie")}

    def _element(self, selector: str) -> str:
        return str(self.send("POST", "/element", using="css selector", value=selector)[ELEMENT])


@contextmanager
def webkit(folder: Path) -> Iterator[WebKit]:
    """Start WebKitGTK on a separate display and home; everything ends with the block."""
    assert DRIVER
    home = folder / "webkit"
    home.mkdir(parents=True)
    port = free_port()
    with _display() as display:
        own = {"DISPLAY": display, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "NO_AT_BRIDGE": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        command = [DRIVER, f"--port={port}", "--host=127.0.0.1"]
        url = f"http://127.0.0.1:{port}"
        with _started(command, env={**kept, **own}), httpx.Client(base_url=url, timeout=60) as driver:
            eventually(lambda: _accepts(port))
            yield WebKit(driver)


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
