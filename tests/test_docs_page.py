"""The OpenAPI page in a real browser: under its CSP, without the internet, with a pasted token."""

import httpx
from playwright.sync_api import Browser, expect

from tests.support.api_client import PASSWORD
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.server import serving

pytestmark = NEEDS_CHROMIUM


def test_the_page_works_under_its_policy_and_opens_the_protected_route(browser: Browser, tmp_path):
    """Fails if an asset or a script of the page isn't a file of the service."""
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    with serving(tmp_path / "var") as server:
        login = httpx.post(f"{server.url}/signup", json={"username": "ada", "password": PASSWORD})
        answer = page.goto(f"{server.url}/docs")
        assert answer
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        page.get_by_role("button", name="Authorize").first.click()
        page.locator(".auth-container input").first.fill(login.json()["access_token"])
        page.locator(".auth-container").get_by_role("button", name="Apply credentials").first.click()
        page.get_by_role("button", name="Close").first.click()
        operation = page.locator(".opblock", has=page.locator('[data-path="/protected"]'))
        operation.locator(".opblock-summary").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        answered = operation.locator(".live-responses-table .response")
        expect(answered.first.locator(".response-col_status")).to_contain_text("200", timeout=15_000)
        expect(answered.first).to_contain_text("Protected data")
        assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []
    assert [line for line in said if "error" in line.lower() or "violat" in line.lower()] == []
