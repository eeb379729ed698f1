"""Three browser engines behind one interface: Chromium, Firefox and WebKit, all from Debian.

Each engine is started by a function of `ENGINES`. It yields an `Engine`, whose profiles have tabs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser import NEEDS_CHROMIUM, chromium_started
from tests.support.firefox import NEEDS_FIREFOX, firefox
from tests.support.webkit import NEEDS_WEBKIT, webkit


class Tab(Protocol):
    """A tab of any engine."""

    def open(self, url: str) -> None:
        """Load a page."""

    def reload(self) -> None:
        """Load the page again."""

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, after waiting for its promise."""

    def until(self, condition: str) -> None:
        """Wait for a condition of the page, even across a navigation."""

    def click(self, selector: str) -> None:
        """Click an element with the mouse."""

    def type(self, selector: str, text: str) -> None:
        """Type into a field, with the keyboard."""


class Profile(Protocol):
    """Cookies and storage that the tabs of one user share."""

    def tab(self, url: str) -> Tab:
        """Open a tab with a page."""


class Engine(Protocol):
    """A browser process."""

    def profile(self) -> AbstractContextManager[Profile]:
        """Yield a profile without cookies and storage; its tabs are closed at the end."""


@dataclass
class ChromiumTab:
    """A tab of Chromium, driven by Playwright."""

    page: Page

    def open(self, url: str) -> None:
        self.page.goto(url)

    def reload(self) -> None:
        self.page.reload()

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(f"async () => ({expression})")

    def until(self, condition: str) -> None:
        self.page.wait_for_function(f"() => Boolean({condition})")

    def click(self, selector: str) -> None:
        self.page.click(selector)

    def type(self, selector: str, text: str) -> None:
        self.page.locator(selector).press_sequentially(text)


@dataclass
class ChromiumProfile:
    """A browser context of Playwright."""

    context: BrowserContext

    def tab(self, url: str) -> ChromiumTab:
        tab = ChromiumTab(self.context.new_page())
        tab.open(url)
        return tab


@dataclass
class Chromium:
    """A Chromium started by Playwright."""

    browser: Browser

    @contextmanager
    def profile(self) -> Iterator[ChromiumProfile]:
        context = self.browser.new_context()
        yield ChromiumProfile(context)
        context.close()


@contextmanager
def chromium(_folder: Path) -> Iterator[Chromium]:
    """Start Chromium; Playwright chooses the folder of its profiles."""
    with chromium_started() as browser:
        yield Chromium(browser)


ENGINES = [
    pytest.param(chromium, id="Chromium", marks=NEEDS_CHROMIUM),
    pytest.param(firefox, id="Firefox", marks=NEEDS_FIREFOX),
    pytest.param(webkit, id="WebKitGTK", marks=NEEDS_WEBKIT),
]
"""The functions that start each engine in a folder."""
