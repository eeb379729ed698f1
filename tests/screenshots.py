"""Take the pictures of docs/screenshots: `python -m tests.screenshots`. Inter, if installed, makes them as designed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser import ARGUMENTS, CHROMIUM
from tests.conftest import PASSWORD, Server, serving

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
SIZES = {"desktop": (1100, 760), "phone": (390, 780)}
DEVICES = ["Safari on iOS", "Chrome on Windows", "Firefox on Linux", "Ada's tablet"]
BRAND = {"brand_name": "Northwind", "brand_color": "#5b4ee4"}


@contextmanager
def context(browser: Browser, server: Server, size: str, scheme: str) -> Iterator[BrowserContext]:
    width, height = SIZES[size]
    found = browser.new_context(
        base_url=server.url,
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        is_mobile=size == "phone",
        reduced_motion="reduce",
    )
    yield found
    found.close()


def outside(page: Page) -> Iterator[str]:
    """What is seen without a session; yields a name each time that the page is ready for its picture."""
    page.goto("/sign-in?reason=idle")
    yield "sign-in"
    page.goto("/sign-up")
    page.get_by_label("Username").fill("ada.lovelace")
    page.get_by_label("Password", exact=True).fill("correct horse lamp")
    yield "sign-up"
    page.goto("/sign-in")
    page.get_by_label("Username").fill("ada.lovelace")
    page.get_by_label("Password", exact=True).fill("not my password")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("The username or the password is wrong.").wait_for()
    yield "sign-in-refused"
    page.goto("/reset-password#token=pr_shown")
    yield "reset-password"


def inside(page: Page) -> Iterator[str]:
    """What is seen with a session."""
    page.goto("/sign-in")
    page.get_by_label("Username").fill("ada.lovelace")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("Protected data", exact=True).last.wait_for()
    yield "home"
    page.get_by_role("button", name="Account of").click()
    yield "user-button"
    page.goto("/account")
    page.get_by_text("This device", exact=True).wait_for(timeout=5000)
    yield "account"
    page.get_by_role("button", name="Change password").click()
    page.get_by_label("Current password", exact=True).fill("mine")
    yield "account-password"
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("button", name="Delete account").click()
    yield "account-delete"


def take(browser: Browser, server: Server) -> None:
    for size in SIZES:
        for scheme in ("light", "dark"):
            with context(browser, server, size, scheme) as opened:
                page = opened.new_page()
                for part in (outside, inside):
                    for name in part(page):
                        whole = name == "account"
                        page.screenshot(path=FOLDER / f"{name}-{size}-{scheme}.png", full_page=whole)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "var", **BRAND) as server,
        sync_playwright() as playwright,
    ):
        account = {"username": "ada.lovelace", "password": PASSWORD, "email": "ada@example.com"}
        httpx.post(f"{server.url}/signup", json={**account, "device_name": DEVICES[0]})
        for name in DEVICES[1:]:
            login = {"username": "ada.lovelace", "password": PASSWORD, "device_name": name}
            httpx.post(f"{server.url}/login", json=login)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        take(browser, server)
        browser.close()


if __name__ == "__main__":
    main()
