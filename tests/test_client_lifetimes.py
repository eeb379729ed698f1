"""Tests that take several token lifetimes; several users go through them at the same time.

Under SESSIONAPI_PROVE there are ten tabs, ten lifetimes and the idle end of a session, otherwise four tabs
and two lifetimes.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import pytest
from playwright.sync_api import Page

from tests.support.browser import NEEDS_CHROMIUM
from tests.support.tabs import SIGNED_IN, Person, World, reasons, world
from tests.support.waiting import eventually

PROVE = "SESSIONAPI_PROVE" in os.environ
TTL, IDLE = 10, 30
LIFETIMES = 10 if PROVE else 2
TABS = 10 if PROVE else 4
LEAST, MOST = 0.7 * TTL, (0.9 if PROVE else 1.5) * TTL
"""Seconds from one refresh to the next: 5/6 of the lifetime, minus a random part of up to a tenth."""
pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server, pytest.mark.prove, pytest.mark.timeout(600)]
CLOCK_IS_WRONG = """(() => {{
  const wrong = {hours} * 3600_000;
  const Right = Date;
  globalThis.Date = class extends Right {{
    constructor(...given) {{ given.length ? super(...given) : super(Right.now() + wrong); }}
    static now() {{ return Right.now() + wrong; }}
  }};
}})()"""
TYPES_NOW_AND_THEN = "() => void setInterval(() => dispatchEvent(new Event('keydown')), 2000)"
SENT = """() => performance.getEntriesByType("resource")
  .filter((each) => each.name.endsWith("/refresh"))
  .map((each) => (performance.timeOrigin + each.startTime) / 1000)"""
CALL = "() => client.fetch('/protected').then((answer) => answer.status)"


@dataclass
class Life:
    """A user, their first tab, and the time at which they signed up."""

    person: Person
    page: Page
    began: float


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Life]]:
    """Start all users, let the time pass once for all of them, and yield them."""
    folder = tmp_path_factory.mktemp("lifetimes")
    settings = {"access_token_ttl": TTL, "refresh_grace": 1, "rotate_after": 3, "short_idle_timeout": IDLE}
    with ExitStack() as close:
        it = close.enter_context(world(folder, **settings))
        lives = {
            "ten": begin(it, "ten"),
            "fast": begin(it, "fast", hours=6),
            "slow": begin(it, "slow", hours=-6),
            "offline": begin(it, "offline"),
            "gone": begin(it, "gone", remember=False),
            "there": begin(it, "there", remember=False),
        }
        for _ in range(TABS - 1):
            lives["ten"].person.tab(until=SIGNED_IN)
        lives["there"].page.evaluate(TYPES_NOW_AND_THEN)
        lives["offline"].person.context.set_offline(True)
        lives["offline"].person.wire.refreshes.clear()
        wait_until(lives, time.monotonic() + LIFETIMES * TTL * (1 if PROVE else 0.85))
        yield lives


def begin(it: World, name: str, *, hours: int = 0, remember: bool = True) -> Life:
    person = it.person()
    if hours:
        person.context.add_init_script(CLOCK_IS_WRONG.format(hours=hours))
    page = person.sign_up(name, remember=remember)
    return Life(person, page, time.monotonic())


def wait_until(lives: dict[str, Life], moment: float) -> None:
    """Let the browser go on until this time."""
    lives["ten"].page.wait_for_timeout(max(0, 1000 * (moment - time.monotonic())))


def gaps_of(person: Person) -> list[float]:
    """Return the seconds between the refreshes as the tabs sent them. A busy machine delays them on the wire.

    The first one is left out, because it came before the sign-up and only looked for a session.
    """
    sent = sorted(moment for page in person.context.pages for moment in page.evaluate(SENT))
    return [after - before for before, after in pairwise(sent[1:])]


def test_many_tabs_refresh_exactly_once_in_each_lifetime_of_a_token(lives: dict[str, Life]):
    """Fails without both the message of acceptResponse() and askOtherTabs(); one of them is enough."""
    life = lives["ten"]
    seen = list(life.person.wire.refreshes)
    gaps = gaps_of(life.person)
    assert life.person.wire.statuses() == {200}
    assert len(seen) >= LIFETIMES
    assert len(gaps) >= LIFETIMES - 1
    assert all(LEAST < gap < MOST for gap in gaps), gaps
    assert {page.evaluate("() => client.user.username") for page in life.person.context.pages} == {"ten"}
    assert len({page.evaluate("() => client.getToken()") for page in life.person.context.pages}) == 1
    assert (
        len({refresh.generation for refresh in seen}) == len({refresh.key for refresh in seen}) == len(seen)
    )
    sys.stdout.write(
        f"\n{len(life.person.context.pages)} tabs, {LIFETIMES} lifetimes of {TTL} s: {len(seen)} refreshes, "
        f"{min(gaps):.2f} to {max(gaps):.2f} s apart, all answered 200\n"
    )


@pytest.mark.parametrize("clock", ["fast", "slow"])
def test_a_clock_that_is_six_hours_wrong_changes_nothing(lives: dict[str, Life], clock: str):
    """Fails if the client reads `exp`."""
    life = lives[clock]
    wrong = life.page.evaluate("() => Date.now()") / 1000 - time.time()
    assert abs(wrong) > 5 * 3600
    gaps = gaps_of(life.person)
    assert life.person.wire.statuses() == {200}
    assert len(gaps) >= LIFETIMES - 1
    assert all(LEAST < gap < MOST for gap in gaps), gaps
    assert life.page.evaluate(CALL) == 200


def test_offline_for_lifetimes_and_back_is_still_signed_in(lives: dict[str, Life]):
    """Fails if a network error ends anything."""
    life = lives["offline"]
    assert life.person.wire.refreshes == []
    assert life.page.evaluate("() => client.user.username") == "offline"
    life.person.context.set_offline(False)
    eventually(lambda: life.page.evaluate(CALL) == 200, 5)
    assert life.page.evaluate("() => client.user.username") == "offline"
    told = life.page.evaluate("() => states.map((state) => state.user?.username ?? null)")
    assert told == [None, "offline"]


def test_a_page_that_is_reloaded_after_lifetimes_is_still_signed_in(lives: dict[str, Life]):
    page = lives["ten"].page
    page.reload()
    page.wait_for_function(SIGNED_IN)
    assert page.evaluate(CALL) == 200


def test_a_tab_without_input_says_so_and_one_with_input_too(lives: dict[str, Life]):
    """The service decides by `active`. Opening the page counted as input once."""
    gone, there = (lives[name].person.wire.refreshes for name in ("gone", "there"))
    assert [refresh.active for refresh in gone] == [True, *[False] * (len(gone) - 1)]
    assert all(refresh.active for refresh in there)
    assert len(there) >= LIFETIMES


@pytest.mark.skipif(not PROVE, reason="it takes the idle end of a session: SESSIONAPI_PROVE=1")
def test_a_tab_without_input_reaches_the_idle_end_and_one_with_input_does_not(lives: dict[str, Life]):
    gone, there = lives["gone"], lives["there"]
    wait_until(lives, gone.began + 1.5 * IDLE + TTL)
    assert gone.page.evaluate("() => client.user") is None
    assert reasons(gone.page)[-1] == "idle"
    assert there.page.evaluate("() => client.user.username") == "there"
    ended = next(refresh.at for refresh in gone.person.wire.refreshes if refresh.status == 401)
    sys.stdout.write(
        f"\nidle timeout {IDLE} s: ended after {ended - gone.began:.1f} s; with input it lives\n"
    )
    assert IDLE < ended - gone.began < IDLE + TTL + 2
