"""The end of a session on the pages: from elsewhere, by time, by signing out. Other sites get nothing."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import pages
from tests.support.api_client import PASSWORD, bearer
from tests.support.browser import FRAME, NEEDS_CHROMIUM, elsewhere
from tests.support.pages import says_why, sign_in, signed_in, visitor
from tests.support.server import Server, serving
from tests.support.waiting import eventually

pytestmark = NEEDS_CHROMIUM
TTL = 10
PROVE = "SESSIONAPI_PROVE" in os.environ
AT_ONCE, TWO_SECONDS = (1000, 2000) if PROVE else (10_000, 10_000)
"""The promised milliseconds; on a busy machine the test checks the mechanism only."""
FROM_ELSEWHERE = "This device was signed out from another one."


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pages") / "var", access_token_ttl=TTL) as it:
        yield it


@pytest.fixture
def username(request) -> str:
    return re.sub(r"\W+", ".", request.node.name.removeprefix("test_"))


@pytest.fixture
def page(chromium: Browser, server: Server, username: str) -> Iterator[Page]:
    """The protected page of a user who is named after the test."""
    server.sign_up(username)
    with visitor(chromium, server) as it:
        sign_in(it, username)
        signed_in(it, username)
        yield it


def sign_out_all_others(chromium: Browser, server: Server, username: str) -> None:
    """Sign out all others in another browser, on its account page."""
    with visitor(chromium, server) as other:
        sign_in(other, username, start="/account")
        other.get_by_role("button", name="Sign out all others").click()
        other.get_by_role("dialog").get_by_role("button", name="Sign out all others").click()
        expect(other.locator("#device-count")).to_have_text("1")


@pytest.mark.prove
def test_a_session_revoked_from_another_browser_ends_at_the_next_call(
    page: Page, chromium: Browser, server: Server, username: str
):
    """The page ends within two seconds. Fails without toSignIn in session.js."""
    page.goto("/account")
    expect(page.locator(".device .badge")).to_be_visible()
    sign_out_all_others(chromium, server, username)
    page.get_by_role("button", name="Sign out all others").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out all others").click()
    says_why(page, FROM_ELSEWHERE, timeout=TWO_SECONDS)
    assert page.url == f"{server.url}/sign-in?next=%2Faccount&reason=revoked_by_user"
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{server.url}/account")


@pytest.mark.prove
def test_an_expired_token_of_a_revoked_session_ends_at_the_next_call(
    page: Page, chromium: Browser, server: Server, username: str
):
    """The token has expired too, because the browser was offline in between."""
    token = pages.token_of(page.context, page)
    page.context.set_offline(True)
    sign_out_all_others(chromium, server, username)
    url = f"{server.url}/protected"
    with httpx.Client(headers=bearer(token)) as client:
        eventually(lambda: client.get(url).json().get("code") == "expired_token")
    page.context.set_offline(False)  # this makes the client call
    says_why(page, FROM_ELSEWHERE, timeout=TWO_SECONDS)


def test_an_end_is_told_with_its_reason(chromium: Browser, server: Server):
    """The page ends without a call, at the next renewal, and without input. All four wait at once."""
    words = {
        "disabled": "Your account is disabled. Ask an administrator.",
        "revoked": "An administrator ended your session.",
        "idle": "You were signed out because this device was not used for a while.",
        "absolute": "Your session has reached its end. Sign in again to go on.",
    }
    with ExitStack() as stack:
        seen = {name: stack.enter_context(visitor(chromium, server)) for name in words}
        for name, page in seen.items():
            server.sign_up(name)
            sign_in(page, name)
            signed_in(page, name)
        pages.command(server, "users", "disable", "disabled")
        pages.command(server, "sessions", "revoke", "--user", "revoked")
        pages.age(server, "idle", last_seen_at=8 * 86_400)
        pages.age(server, "absolute", expires_at=31 * 86_400)
        for name, page in seen.items():
            says_why(page, words[name], timeout=2000 * TTL)


@pytest.mark.prove
def test_signing_out_signs_all_tabs_out_and_the_way_back_shows_nothing(
    page: Page, server: Server, username: str
):
    """Fails without toSignIn in session.js, or the client's channel.

    A page that a browser kept in spite of no-store (see test_pages_http.py) shows no data, and sends a
    request first.
    """
    tab = page.context.new_page()
    tab.goto("/account")
    expect(tab.locator(".device .badge")).to_be_visible()
    page.goto("/account")
    page.goto("/")
    signed_in(page, username)
    page.get_by_role("button", name="Account of").click()
    page.get_by_role("button", name="Sign out").click()
    says_why(tab, "You are signed out.", timeout=AT_ONCE)
    says_why(page, "You are signed out.")
    assert pages.ends_of(server, username) == {None, "logout"}  # the session of the sign-up is active
    for _ in range(2):
        page.go_back()
        expect(page.get_by_role("button", name="Continue")).to_be_visible()
        assert username not in page.content()
    assert {cookie["name"] for cookie in page.context.cookies()} == {"__Host-device"}


def test_signing_out_leads_where_the_settings_say(chromium: Browser, tmp_path):
    with serving(tmp_path / "var", after_sign_out_url="/docs") as server, visitor(chromium, server) as page:
        server.sign_up("ada")
        sign_in(page, "ada")
        signed_in(page, "ada")
        page.get_by_role("button", name="Account of").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{server.url}/docs")


def test_the_service_away_signs_nobody_out(page: Page, server: Server, username: str):
    page.context.set_offline(True)
    page.get_by_role("button", name="Request again").click()
    expect(page.get_by_role("alert")).to_contain_text("The service can't be reached.")
    page.get_by_role("button", name="Account of").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#toast")).to_contain_text("You are still signed in.")
    page.context.set_offline(False)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Request again").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    signed_in(page, username)


def test_the_end_is_announced_and_somebody_who_is_there_stays(page: Page, server: Server, username: str):
    """The session is set to have 60 of its 200 idle seconds left."""
    pages.change(server, username, "idle_timeout = 200")
    pages.age(server, username, last_seen_at=140, rotated_at=140)
    dialog = page.get_by_role("dialog", name="Are you still there?")
    expect(dialog).to_be_visible(timeout=2000 * TTL)
    expect(dialog.locator(".countdown")).to_contain_text("seconds")
    stay = dialog.get_by_role("button", name="Stay signed in")
    expect(stay).to_be_focused()
    stay.click()
    expect(dialog).to_be_hidden()
    signed_in(page, username)


def test_an_end_that_nothing_moves_is_told_as_such(page: Page, server: Server, username: str):
    """The absolute end, which the user can't postpone by staying."""
    pages.change(server, username, f"expires_at = {int((time.time() + 60) * 1e6)}")
    page.reload()
    dialog = page.get_by_role("dialog", name="Are you still there?")
    dialog.get_by_role("button", name="Stay signed in").click()
    final = page.get_by_role("dialog", name="Your session is about to end")
    expect(final).to_contain_text("It has reached its maximum duration.")
    expect(final.get_by_role("button", name="Stay signed in")).to_be_hidden()
    final.get_by_role("button", name="Sign out").click()
    says_why(page, "You are signed out.")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("path", ["/sign-in", "/account"])
def test_no_page_is_framed_by_another_origin_or_site(chromium: Browser, server: Server, host, path):
    """Clickjacking. Fails without frame-ancestors in CSP of web/routes/pages.py."""
    with elsewhere() as port:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"http://{host}:{port}/")
        with page.expect_event("console", lambda message: "frame-ancestors" in message.text):
            page.evaluate(FRAME, f"{server.url}{path}")
        context.close()


def test_next_of_an_address_from_elsewhere_stays_home_in_a_browser(chromium: Browser, server: Server):
    """The table of test_pages_http.py, as Chromium reads it."""
    server.sign_up("stays.home")
    for target in (
        "//evil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "https:evil.example",
        "%2F%2Fevil.example",
    ):
        with visitor(chromium, server) as page:
            sign_in(page, "stays.home", start=f"/sign-in?next={target}")
            signed_in(page, "stays.home")
            assert page.url == f"{server.url}/"
