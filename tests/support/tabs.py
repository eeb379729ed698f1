"""Tabs of a page on another origin than the service; the page exposes the client as `window.client`."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.api_client import PASSWORD
from tests.support.browser import ARGUMENTS, CHROMIUM, OnePage
from tests.support.server import Server, serving
from tests.support.wire import Threads, Wire, wire

HTML = b"""<!doctype html><meta charset="utf-8"><title>app</title><script type="module">
const asked = new URLSearchParams(location.search);
const { createClient } = await import(`${asked.get("api")}/session-client.js`);
window.states = [];
const made = performance.now();
window.client = createClient({ baseUrl: asked.get("api"), warnBefore: Number(asked.get("warn")) });
client.onChange((state) => {
  window.knownAfter ??= performance.now() - made;
  states.push(state);
});
</script>"""
KNOWN = "() => window.client && client.user !== undefined"
SIGNED_IN = "() => window.client?.user"
SIGNED_OUT = "() => window.client?.user === null"
SIGN_UP = """async ([username, password, remember]) => {
  await client.signUp({ username, password, remember });
}"""


class ClientPage(OnePage):
    html = HTML


@contextmanager
def app_at(host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the page; yields its origin."""
    server = Threads(("127.0.0.1", 0), ClientPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{host}:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class World:
    """One server and one browser; each `person` has a separate profile and a separate proxy."""

    app: str
    server: Server
    data: Path
    browser: Browser | None
    close: ExitStack

    def wire(self) -> Wire:
        made = self.close.enter_context(wire())
        made.upstream = self.server.url
        return made

    def address(self, at: Wire, *, warn: int = 0) -> str:
        """Return the URL of the page, with the URL of the service that it is to use."""
        return f"{self.app}/?{urlencode({'api': at.url, 'warn': warn})}"

    def change(self, name: str, assignments: str) -> None:
        """Change a user's session in the database, without the server. Times are in microseconds."""
        with sqlite3.connect(self.data / "sessionapi.db", timeout=10) as database:
            who = "user_id = (select id from users where username = ?)"
            database.execute(f"update sessions set {assignments} where {who}", [name])
        database.close()

    def rotation_is_due(self, name: str) -> None:
        """Move a user's last rotation an hour into the past."""
        self.change(name, "rotated_at = rotated_at - 3600000000, last_seen_at = last_seen_at - 3600000000")

    def person(self, **options: Any) -> "Person":
        assert self.browser
        return Person(self, self.browser.new_context(**options), self.wire())


@dataclass
class Person:
    """A user's browser, and the proxy between it and the server."""

    world: World
    context: BrowserContext
    wire: Wire

    def tab(self, *, warn: int = 0, until: str = KNOWN) -> Page:
        page = self.context.new_page()
        page.goto(self.world.address(self.wire, warn=warn))
        page.wait_for_function(until)
        return page

    def sign_up(self, name: str, *, remember: bool = True, warn: int = 0) -> Page:
        page = self.tab(warn=warn)
        page.evaluate(SIGN_UP, [name, PASSWORD, remember])
        self.wire.refreshes.clear()
        return page

    def token(self) -> str:
        return self.context.pages[0].evaluate("() => client.getToken()")

    def cookie(self) -> dict[str, Any]:
        return next(each for each in self.context.cookies() if each["name"] == "__Host-session")


@contextmanager
def world(folder: Path, *, browser: bool = True, **settings: Any) -> Iterator[World]:
    """A server that lists the page's origin, and a Chromium unless the test starts one."""
    with ExitStack() as close:
        app = close.enter_context(app_at())
        data = folder / "var"
        server = close.enter_context(serving(data, allowed_origins=app, **settings))
        started = None
        if browser:
            playwright = close.enter_context(sync_playwright())
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            close.callback(started.close)
        yield World(app, server, data, started, close)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server and one browser for the tests of a module, none of which is async."""
    with world(tmp_path_factory.mktemp("tabs"), refresh_grace=1, rotate_after=3) as it:
        yield it


@pytest.fixture
def person(here: World) -> Iterator[Person]:
    """A user whose browser ends with the test."""
    it = here.person()
    yield it
    it.context.close()


def reasons(page: Page) -> list[str | None]:
    """Return the reason of each state that the page received, in order."""
    return page.evaluate("() => states.map((state) => state.reason)")
