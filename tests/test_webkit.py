"""The pages in WebKitGTK, whose cookie rules are those of Safari. `make run` has to work there."""

from collections.abc import Iterator

import pytest

from tests.support.api_client import PASSWORD
from tests.support.pages import ends_of
from tests.support.server import serving
from tests.support.webkit import NEEDS_WEBKIT, WebKitProfile, WebKitTab, webkit

pytestmark = [*NEEDS_WEBKIT, pytest.mark.engines("sqlite")]
GREETED = "document.querySelector('h1')?.textContent === 'Hello, ada'"
READY = "document.querySelector('[type=submit]')?.disabled === false"
SAID = "document.querySelector('.alert')?.textContent"


@pytest.fixture
def profile(tmp_path) -> Iterator[WebKitProfile]:
    with webkit(tmp_path) as browser, browser.profile() as it:
        yield it


def fill(page: WebKitTab, form: str) -> None:
    page.open(form)
    page.until(READY)
    page.type("[name=username]", "ada")
    page.type("[name=password]", PASSWORD)
    page.click("[type=submit]")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_user_who_signs_up_on_plain_http_stays_signed_in(tmp_path, profile, host):
    """`make run` in Safari. Fails with Secure cookies, which WebKit drops on http://localhost."""
    with serving(tmp_path / "var", cookie_secure="auto") as server:
        home = server.url.replace("127.0.0.1", host)
        page = profile.tab(home)
        fill(page, f"{home}/sign-up")
        page.until(GREETED)
        assert set(page.cookies()) == {"sessionapi-session", "sessionapi-device"}
        page.reload()
        page.until(GREETED)
        page.open(f"{home}/account")
        page.until("document.querySelector('[data-user=username]')?.textContent === 'ada'")
        page.evaluate("document.getElementById('sign-out').click()")
        page.until("location.pathname === '/sign-in'")
        fill(page, f"{home}/sign-in?next=/account")
        page.until("location.pathname === '/account'")
        assert ends_of(server, "ada") == {"logout", None}


@pytest.mark.parametrize("form", ["sign-in", "sign-up"])
def test_a_page_that_cannot_keep_a_secure_cookie_says_so_before_a_password_is_sent(tmp_path, profile, form):
    """WebKit with COOKIE_SECURE=on. Fails without `usable` in the form's script."""
    with serving(tmp_path / "var", cookie_secure="on") as server:
        page = profile.tab(f"{server.url}/{form}")
        page.until(f"{SAID}.includes('only over https')")
        assert page.evaluate("document.querySelector('[type=submit]').disabled")
        assert page.cookies() == {}
