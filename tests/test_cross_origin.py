"""RFC 6265bis, CSRF, CORS and the headers: what a browser may send, read, keep and run."""

import pytest
from playwright.sync_api import Browser, Page

from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running
from tests.support.browser import FRAME, NEEDS_CHROMIUM, elsewhere
from tests.support.server import Server, serving

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

APP, EVIL = "https://app.example.com", "https://evil.example"
BY_COOKIE = {"username": "ada", "password": PASSWORD, "transport": "cookie"}
LOG_IN = """async ([url, body]) => {
  const answer = await fetch(url + "/login", {method: "POST", credentials: "include",
    headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
  return answer.status
}"""
CALL = """async ([url, type]) => {
  try {
    const answer = await fetch(url, {method: "POST", credentials: "include", body: "{}",
      headers: type ? {"Content-Type": type} : {}});
    return `${answer.status} ${await answer.text()}`
  } catch (error) { return "unreadable" }
}"""


POST_A_FORM = """url => {
  const form = document.createElement("form");
  Object.assign(form, {method: "post", action: url, enctype: "text/plain"});
  document.body.append(form);
  form.submit();
}"""


def logged_in(browser: Browser, server: Server, **more: object) -> Page:
    page = browser.new_page()
    page.request.post(f"{server.url}/signup", data={"username": "ada", "password": PASSWORD})
    page.goto(f"{server.url}/docs")
    assert page.evaluate(LOG_IN, [server.url, {**BY_COOKIE, **more}]) == 200
    return page


class TestInChromium:
    """Each case in a real browser, against a real server."""

    pytestmark = NEEDS_CHROMIUM

    @pytest.mark.parametrize("remember", [True, False])
    @pytest.mark.requirement("RFC 6265bis, ASVS 3.3")
    def test_the_cookies_are_host_secure_httponly_lax(self, browser: Browser, tmp_path, remember):
        """Fails without an attribute in cookies._set. A `__Host-` cookie with a Domain is rejected."""
        with serving(tmp_path / "var") as server:
            page = logged_in(browser, server, remember=remember)
            found = {cookie["name"]: cookie for cookie in page.context.cookies()}
            assert set(found) == {"__Host-session", "__Host-device"}
            for cookie in found.values():
                assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")
                assert (cookie["path"], cookie["domain"]) == ("/", "127.0.0.1")
                assert (cookie["expires"] > 0) is remember
            assert page.evaluate("document.cookie") == ""

    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
    @pytest.mark.requirement("OWASP CSRF")
    def test_no_other_origin_or_site_posts_with_the_cookie(self, browser: Browser, tmp_path, name):
        """Fails without middleware.is_cross_origin. 127.0.0.1 against localhost."""
        with serving(tmp_path / "var") as server, elsewhere() as port:
            page = logged_in(browser, server)
            before = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
            page.goto(f"http://{name}:{port}/")
            for path in ("/refresh", "/logout", "/login"):
                for kind in ("application/json", "text/plain", ""):
                    assert page.evaluate(CALL, [server.url + path, kind]) == "unreadable"
                page.evaluate(POST_A_FORM, server.url + path)
                page.wait_for_url(server.url + path)
                assert '"code":"' in page.content()
                page.goto(f"http://{name}:{port}/")
            assert {cookie["name"]: cookie["value"] for cookie in page.context.cookies()} == before
            page.goto(f"{server.url}/docs")
            assert page.evaluate(CALL, [f"{server.url}/refresh", "application/json"]).startswith("200 ")

    @pytest.mark.requirement("headers")
    def test_no_page_is_framed(self, browser: Browser, tmp_path):
        """Fails without frame-ancestors in the policy."""
        with serving(tmp_path / "var") as server, elsewhere() as port:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            with page.expect_event("console", lambda message: "frame-ancestors" in message.text):
                page.evaluate(FRAME, f"{server.url}/docs")


ELSEWHERE = [
    EVIL,
    "null",
    "",
    "http://localhost:8000.evil.example",
    "http://localhost:8000.",
    "http://localhost.:8000",
    "http://localhost",
    "https://localhost:8000",
    "http://localhost:8000/",
    "HTTP://LOCALHOST:8000",
    "http://LOCALHOST:8000",
    f"http://localhost:8000, {EVIL}",
]


@pytest.mark.parametrize("origin", ELSEWHERE)
@pytest.mark.requirement("OWASP CSRF")
async def test_no_cookie_is_set_or_read_for_another_origin(service: Running, origin: str):
    """Login CSRF. Fails without middleware.is_cross_origin."""
    await service.sign_up()
    for path in ("/login", "/signup"):
        answer = await service.client.post(path, json=BY_COOKIE, headers={"Origin": origin})
        assert refusal(answer)[:2] == (403, "csrf_rejected")
        assert "set-cookie" not in answer.headers
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await service.client.post("/login", content=b"username=ada&password=x", headers=form)
    assert refusal(answer)[:2] == (415, "unsupported_media_type")


LIES = [
    {"Host": "evil.example"},
    {"Host": "evil.example", "X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-Host": "evil.example"},
    {"Forwarded": "host=evil.example;proto=http", "X-Forwarded-Proto": "http"},
    {"Host": "evil.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("public_url", ["http://localhost:8000", "https://login.example.com"])
@pytest.mark.requirement("OWASP CSRF")
async def test_no_header_makes_another_origin_ours(make_settings, clock, public_url, lie):
    """DNS rebinding, and headers that proxies pass on. Fails if is_cross_origin trusts any of them."""
    async with running(make_settings(public_url=public_url), clock) as service:
        await service.sign_up()
        for origin in ("http://evil.example", "https://evil.example"):
            headers = {**lie, "Origin": origin}
            answer = await service.client.post("/login", json=BY_COOKIE, headers=headers)
            assert refusal(answer)[:2] == (403, "csrf_rejected")
            assert "set-cookie" not in answer.headers


@pytest.mark.requirement("CORS")
async def test_public_keys_are_read_by_all_without_credentials(make_settings, clock):
    """Fails if the rule for the listed origins is also used for `verification.PATHS`."""
    async with running(make_settings(allowed_origins=(APP,)), clock) as service:
        for origin in (APP, EVIL, "null"):
            for name in ("jwks.json", "oauth-authorization-server", "openid-configuration"):
                answer = await service.client.get(f"/.well-known/{name}", headers={"Origin": origin})
                assert answer.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["null", "*", "https://*.example.com", "file://", "javascript://x"])
@pytest.mark.requirement("CORS")
def test_null_and_wildcards_cannot_be_listed(make_settings, origin):
    """Fails without any line of `origins.origin`. Every sandboxed page sends `null`."""
    with pytest.raises(ValueError, match="must list origins"):
        make_settings(allowed_origins=origin)


@pytest.mark.requirement("headers")
async def test_every_answer_has_the_security_headers_and_tokens_are_never_stored(make_settings, clock):
    """Fails without RequestContext, or with a policy that allows inline code."""
    async with running(make_settings(public_url="https://login.example.com"), clock) as service:
        tokens = await service.client.post("/signup", json={**BY_COOKIE, "transport": "body"})
        assert tokens.headers["cache-control"] == "no-store"
        paths = ("/docs", "/sign-in", "/reset-password", "/", "/nowhere", "/static/nothing.js")
        for answer in (tokens, *[await service.client.get(path) for path in paths]):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["strict-transport-security"].startswith("max-age=63072000")
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
