"""A tab that the browser freezes, in any state, stalls no other tab for more than two seconds."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

import pytest

from tests.support.api_client import PASSWORD
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.devtools import Chromium, Tab, chromium
from tests.support.tabs import World, world
from tests.support.waiting import eventually
from tests.support.wire import Wire

pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server, pytest.mark.prove]
MOST = 2_000 if "SESSIONAPI_PROVE" in os.environ else 4_000
"""Milliseconds that a tab may wait. A machine that runs other tests at the same time is given more."""
TIMED = """(async () => {
  const began = performance.now();
  await client.stay();
  return performance.now() - began;
})()"""
BEGIN = "void client.stay().catch(() => {})"
SIGN_UP = "client.signUp({{ username: '{}', password: '{}' }}).then(() => true)"


@dataclass
class Ada:
    """A user with a separate Chromium."""

    world: World
    wire: Wire
    open: Callable[[str], Tab]
    first: Tab = field(init=False)

    def tab(self, until: str = "window.client?.user") -> Tab:
        made = self.open(self.world.address(self.wire))
        made.until(until)
        return made

    def begin_and_freeze(self, tab: Tab) -> threading.Event:
        """Freeze a tab that holds the lock and waits for a response; return the event that sends it."""
        gate = self.wire.hold = threading.Event()
        asked = len(self.wire.refreshes)
        tab.evaluate(BEGIN)
        eventually(lambda: len(self.wire.refreshes) > asked)
        tab.freeze()
        return gate


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("frozen")
    with world(folder, browser=False, refresh_grace=1, rotate_after=3) as it:
        yield it


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as it:
        yield it


@pytest.fixture
def ada(here: World, browser: Chromium, request) -> Iterator[Ada]:
    context = browser.new_profile()
    it = Ada(here, here.wire(), partial(browser.tab, browserContextId=context))
    it.first = it.tab(until="window.client")
    it.first.evaluate(SIGN_UP.format(request.node.name[:100], PASSWORD))
    yield it
    browser.whole.send("Target.disposeBrowserContext", browserContextId=context)


def test_the_others_go_on_when_a_frozen_tab_holds_the_lock(ada: Ada):
    """Fails without `steal` in withLock()."""
    others = [ada.tab(), ada.tab()]
    gate = ada.begin_and_freeze(ada.first)
    first, second = others[1].evaluate(TIMED), others[1].evaluate(TIMED)
    assert first < MOST
    assert second < first
    sys.stdout.write(f"\na frozen tab holds the lock: another waits {first:.0f} ms, then {second:.0f} ms\n")
    gate.set()
    ada.first.thaw()
    ada.first.until("client.user")


def test_nobody_waits_for_a_tab_that_was_given_the_lock_while_it_was_frozen(ada: Ada):
    waiting, other = ada.tab(), ada.tab()
    gate = ada.wire.hold = threading.Event()
    ada.wire.refreshes.clear()
    ada.first.evaluate(BEGIN)
    eventually(lambda: ada.wire.refreshes)
    waiting.evaluate(BEGIN)
    waiting.freeze()
    gate.set()
    assert other.evaluate(TIMED) < MOST


def test_a_new_tab_is_signed_in_at_once_beside_a_frozen_one(ada: Ada):
    """Fails without ask() before the lock."""
    other = ada.tab()
    ada.begin_and_freeze(ada.first)
    asked = len(ada.wire.refreshes)
    assert ada.tab().evaluate("knownAfter") < 1_000  # the shortest time that it waits for a lock
    assert len(ada.wire.refreshes) == asked
    assert other.evaluate("Boolean(client.user)")


def test_a_sign_out_wins_over_the_refresh_of_a_frozen_tab(ada: Ada):
    """Fails without `changes !== before` in refresh()."""
    other = ada.tab()
    gate = ada.begin_and_freeze(ada.first)
    other.evaluate("client.signOut().then(() => true)")
    gate.set()
    ada.first.thaw()
    ada.first.until("client.user === null")
    ada.first.evaluate("new Promise((done) => setTimeout(done, 500))")
    for tab in (ada.first, other):
        assert tab.evaluate("client.user === null && states.at(-1).reason") == "logout"


def test_a_sign_in_wins_over_the_refresh_of_a_frozen_tab(ada: Ada):
    """The frozen tab's response is about the session that the sign-in replaced."""
    other = ada.tab()
    gate = ada.begin_and_freeze(ada.first)
    other.evaluate(SIGN_UP.format("grace", PASSWORD))
    gate.set()
    ada.first.thaw()
    ada.first.until("client.user?.username === 'grace'")
    ada.first.evaluate("new Promise((done) => setTimeout(done, 500))")
    assert ada.first.evaluate("client.user.username") == other.evaluate("client.user.username") == "grace"


def test_a_page_that_comes_back_by_the_back_button_knows_that_its_user_has_left(ada: Ada):
    """A page that the browser kept has received no message, so wake() sends a request to the service."""
    origin = ada.first.evaluate("location.origin")
    ada.first.navigate(f"{origin}/?api={quote('http://127.0.0.1:9', safe='')}")
    ada.first.until("location.search.endsWith('A9')")
    ada.tab().evaluate("client.signOut().then(() => true)")
    ada.first.back()
    ada.first.until("window.client?.user === null", 10)
