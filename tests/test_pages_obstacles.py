"""The page explains why a browser can't stay signed in, before a password is sent or right after."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.support.api_client import PASSWORD
from tests.support.browser import ARGUMENTS, CHROMIUM, NEEDS_CHROMIUM, chromium_started
from tests.support.pages import ends_of, fill, signed_in
from tests.support.ports import free_port
from tests.support.server import serving

pytestmark = [*NEEDS_CHROMIUM, pytest.mark.engines("sqlite")]
FORMS = {"/sign-in": "Continue", "/sign-up": "Create account"}
LAN = "lan.example"
ALIASES = f"--host-resolver-rules=MAP {LAN} 127.0.0.1"
"""A name that isn't a loopback name for the browser, although it resolves to this computer."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_started(ALIASES) as started:
        yield started


def locked(page: Page, words: str) -> None:
    """Wait for the message of the form, which sends no password, not even with Enter."""
    passwords: list[Request] = []
    page.on("request", lambda sent: passwords.append(sent) if PASSWORD in (sent.post_data or "") else None)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator("[type=submit]")).to_be_disabled()
    fill(page, username="ada", password=PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(words)
    assert passwords == []
    assert page.context.cookies() == []


@pytest.mark.parametrize("path", FORMS)
def test_on_a_lan_address_the_page_names_the_address_that_works(chromium: Browser, tmp_path, path):
    """Fails without `isOwn` in obstacles.js: the password is sent over plain http, and refused."""
    with serving(tmp_path / "var", cookie_secure="auto") as server:
        page = chromium.new_page()
        page.goto(server.url.replace("127.0.0.1", LAN) + path)
        locked(page, "You can sign in only at http://localhost:8000, not at")
        page.close()


@pytest.mark.parametrize("path", FORMS)
def test_a_public_url_of_plain_http_on_a_lan_says_that_https_is_missing(chromium: Browser, tmp_path, path):
    """The browser drops the Secure cookie. Fails without `keepsCookies`."""
    home = f"http://{LAN}:{(port := free_port())}"
    settings = {"cookie_secure": "auto", "public_url": home}
    with serving(tmp_path / "var", "--port", str(port), **settings):
        page = chromium.new_page()
        page.goto(home + path)
        locked(page, "this browser keeps the cookie only over https")
        page.close()


@pytest.mark.parametrize(("path", "secure"), [("/sign-in", "auto"), ("/sign-up", "on")])
def test_a_browser_that_blocks_cookies_is_told_before_a_password_is_sent(
    chromium: Browser, tmp_path, path, secure
):
    profile = tmp_path / "profile"
    with serving(tmp_path / "var", cookie_secure=secure) as server, blocking(chromium, profile) as page:
        page.goto(server.url + path)
        locked(page, "Cookies are blocked in this browser")


@pytest.mark.parametrize("path", FORMS)
def test_a_sign_in_whose_cookie_is_lost_says_so_and_leaves_no_session(chromium: Browser, tmp_path, path):
    """A proxy removes the cookie. Fails without `isSignedIn` in entrance.js: the form is shown again."""
    with serving(tmp_path / "var", cookie_secure="auto") as server, thief(server.url) as address:
        if path == "/sign-in":
            server.sign_up("ada")
        page = chromium.new_page()
        page.goto(address + path)
        fill(page, username="ada", password=PASSWORD)
        page.get_by_role("button", name=FORMS[path]).click()
        expect(page.get_by_role("alert")).to_contain_text("this browser did not keep the cookie")
        assert urlsplit(page.url).path == path
        assert ends_of(server, "ada") == ({"logout", None} if path == "/sign-in" else {"logout"})
        page.close()


@pytest.mark.parametrize("secure", ["auto", "on"])
def test_the_probe_leaves_nothing_behind_and_a_sign_in_goes_on(chromium: Browser, tmp_path, secure):
    with serving(tmp_path / "var", cookie_secure=secure) as server:
        page = chromium.new_context().new_page()
        page.goto(f"{server.url}/sign-up")
        expect(page.locator("[type=submit]")).to_be_enabled()
        assert page.context.cookies() == []
        assert page.evaluate("document.cookie") == ""
        fill(page, username="ada", password=PASSWORD)
        page.get_by_role("button", name="Create account").click()
        signed_in(page, "ada")
        page.context.close()


def test_only_listed_origins_of_the_requested_host_are_in_a_page(chromium: Browser, tmp_path):
    """The other origins are not published."""
    listed = "http://second.example,https://secret.example"
    with serving(tmp_path / "var", allowed_origins=listed) as server:
        found = {}
        for host in ("second.example", "127.0.0.1"):
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
            connection.request("GET", "/sign-in", headers={"Host": host})
            found[host] = connection.getresponse().read().decode()
            connection.close()
        assert 'data-origins="http://localhost:8000 http://second.example"' in found["second.example"]
        assert 'data-origins="http://localhost:8000"' in found["127.0.0.1"]
        assert "secret.example" not in str(found)


@contextmanager
def blocking(chromium: Browser, profile: Path) -> Iterator[Page]:
    """A Chromium whose user has blocked all cookies."""
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (profile / "Default").mkdir(parents=True)
    (profile / "Default" / "Preferences").write_text(json.dumps(settings))
    start = chromium.browser_type.launch_persistent_context
    context = start(profile, executable_path=CHROMIUM, args=ARGUMENTS)
    yield context.new_page()
    context.close()


@contextmanager
def thief(upstream: str) -> Iterator[str]:
    """A proxy that removes every cookie that the server sets."""

    class Handler(BaseHTTPRequestHandler):
        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("set-cookie", "transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name in ("do_GET", "do_POST"):
                return self.serve
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
