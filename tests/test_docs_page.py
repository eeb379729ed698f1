"""The OpenAPI page in a real browser: under its CSP, without the internet, with a pasted token."""

import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import PASSWORD, serving

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed: apt-get install chromium"),
]


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser.new_page()
        browser.close()


def test_the_page_works_under_its_policy_and_opens_the_protected_route(page: Page, tmp_path):
    """Falls if an asset or a script of the page isn't a file of the service."""
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
