"""The example app in Chromium, on a separate port, as a user meets it."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.api_client import PASSWORD
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.server import serving
from tests.support.tabs import app_at
from tests.support.wire import Wire, wire

pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server]
SERVE = Path(__file__).parents[1] / "examples" / "spa" / "serve.py"
DAY = 86_400
SESSION, SHORT = 20 * DAY, 30


@contextmanager
def example(api: str) -> Iterator[str]:
    """Run the example as its README describes; yields its URL."""
    command = [sys.executable, str(SERVE), "--port", "0", "--api", api]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield found.group().replace("localhost", "127.0.0.1")
        process.terminate()


@pytest.fixture(scope="module")
def spa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Wire]]:
    data = tmp_path_factory.mktemp("spa") / "var"
    settings = {"access_token_ttl": 10, "refresh_grace": 1, "rotate_after": 3, "session_ttl": SESSION}
    settings["short_idle_timeout"] = SHORT
    with wire() as at, example(at.url) as app, serving(data, allowed_origins=app, **settings) as server:
        at.upstream = server.url
        yield app, at


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a browser that was never here before."""
    context = chromium.new_context()
    yield context.new_page()
    context.close()


def sign_up(page: Page, app: str, name: str, *, remember: bool = True) -> None:
    page.goto(app)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Stay signed in").set_checked(remember)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_text(f"Signed in as {name}")).to_be_visible()


def session_cookie(page: Page) -> dict:
    return next(each for each in page.context.cookies() if each["name"] == "__Host-session")


def test_a_visit_from_sign_up_to_sign_out_in_two_tabs(page: Page, spa):
    """It includes the cookie that each way of signing in leaves in the browser."""
    app, _ = spa
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    sign_up(page, app, "ada")
    cookie = session_cookie(page)
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (
        True,
        True,
        "Lax",
        "/",
    )
    assert abs(cookie["expires"] - time.time() - SESSION) < 60
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_text("Protected data")).to_be_visible()
    second = page.context.new_page()
    second.goto(app)
    expect(second.get_by_text("Signed in as ada")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Signed in as ada")).to_be_visible()
    second.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible(timeout=1_000)
    expect(page.get_by_text("Protected data")).to_be_hidden()
    assert said == []


def test_a_wrong_password_and_a_service_that_is_away_are_told_in_words(page: Page, spa):
    app, _ = spa
    sign_up(page, app, "grace")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status")).to_contain_text(re.compile("password", re.IGNORECASE))
    page.context.set_offline(True)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status")).to_have_text("The service can't be reached. Try again.")


def test_a_warning_counts_down_to_the_end_and_can_be_answered(page: Page, spa):
    """Not remembered: the cookie is gone when the browser closes, and the end is 30 s away."""
    app, at = spa
    sign_up(page, app, "alan", remember=False)
    assert session_cookie(page)["expires"] == -1
    seconds = page.locator("#seconds")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(seconds).to_have_text(re.compile(r"^2[0-7]$"))  # the click counted, and ROTATE_AFTER is over
    page.get_by_role("button", name="Stay signed in").click()
    expect(seconds).to_have_text(re.compile("^(30|29)$"))
    assert at.refreshes[-1].active


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["origin", "site"])
def test_a_hostile_page_that_uses_the_client_gets_nothing(page: Page, spa, host):
    """From another origin and another site. Fails with a reflected origin, or without is_cross_origin."""
    app, at = spa
    name = f"victim-{host}"
    sign_up(page, app, name)
    before = session_cookie(page)["value"]
    with app_at(host) as evil:
        hostile = page.context.new_page()
        hostile.goto(f"{evil}/?api={at.url}")
        hostile.wait_for_function("() => window.client")
        got = hostile.evaluate(
            """async (password) => Promise.all([
              client.getToken(), client.signIn({ username: "mallory", password }), client.signOut(),
              client.stay(),
            ].map((call) => call.then(() => "got", (error) => error.name)))""",
            PASSWORD,
        )
        assert set(got) == {"TypeError"}
        assert hostile.evaluate("() => client.user") is None
    assert session_cookie(page)["value"] == before
    page.reload()
    expect(page.get_by_text(f"Signed in as {name}")).to_be_visible()
