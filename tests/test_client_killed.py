"""Chromium is killed and started again with the same profile, so its cookies are half a minute old.

Under SESSIONAPI_PROVE it is killed ten times after a renewal and ten times after a rotation, up to twelve
seconds later. By then Chromium has written what scripts store (it waits 5 s), but not the cookies (30 s).
"""

import os
import random
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.api_client import PASSWORD
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.devtools import Chromium, Tab, chromium
from tests.support.tabs import World, world
from tests.support.wire import Wire

PROVE = "SESSIONAPI_PROVE" in os.environ
KILLS = 10 if PROVE else 1
pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server, pytest.mark.prove, pytest.mark.timeout(900)]
SIGN_UP = f"client.signUp({{ username: 'ada', password: '{PASSWORD}' }}).then(() => true)"
NAME = "client.user?.username"


@pytest.fixture
def here(tmp_path) -> Iterator[World]:
    with world(tmp_path, browser=False, refresh_grace=1) as it:
        yield it


def opened(it: World, at: Wire, browser: Chromium) -> Tab:
    tab = browser.tab(it.address(at))
    tab.until("window.client && client.user !== undefined")
    return tab


def test_whoever_was_signed_in_before_a_kill_is_so_after_it(here: World, tmp_path):
    """Fails, after a rotation, if the key is replaced as soon as a response names the new generation."""
    at, profile, dice = here.wire(), tmp_path / "profile", random.Random(12)
    with chromium(profile) as browser:
        opened(here, at, browser).evaluate(SIGN_UP)
        browser.close()
    for number, kind in enumerate(["renewal", "rotation"] * KILLS):
        if kind == "rotation":
            here.rotation_is_due("ada")
        with chromium(profile) as browser:
            assert opened(here, at, browser).evaluate(NAME) == "ada"
            seconds = dice.uniform(2, 12) if PROVE else 1.1
            time.sleep(seconds)  # the grace of 1 s is over; the data on Chromium's disk depends on it
            browser.kill()
        with chromium(profile) as browser:
            assert opened(here, at, browser).evaluate(NAME) == "ada", (number, kind, seconds)
            browser.close()
    assert at.statuses() == {200, 401}  # before the sign-up there was nothing to refresh
    assert at.refreshes[-1].generation == KILLS
    sys.stdout.write(f"\nkilled {KILLS} times after a renewal, {KILLS} times after a rotation: signed in\n")
