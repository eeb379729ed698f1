"""Take the pictures of docs/screenshots: `python -m proofs.screenshots`.

It uses the font Inter (fonts-inter) and pngquant if they are installed.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support import pages
from tests.support.browser import ARGUMENTS, CHROMIUM
from tests.support.server import Server, serving

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
SIZES = {"desktop": (1100, 760), "phone": (390, 780)}
DEVICES = [
    ("Safari on iOS", "203.0.113.24", 300),
    ("Chrome on Windows", "198.51.100.7", 3 * 3600),
    ("Firefox on Linux", "203.0.113.24", 26 * 3600),
    ("Ada's old laptop", "192.0.2.61", 6 * 86_400),
]
BRAND = {"brand_name": "Northwind", "brand_color": "#5b4ee4"}
AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
)


@contextmanager
def context(browser: Browser, server: Server, size: str, scheme: str) -> Iterator[BrowserContext]:
    width, height = SIZES[size]
    found = browser.new_context(
        base_url=server.url,
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        is_mobile=size == "phone",
        reduced_motion="reduce",
        user_agent=AGENT,
        device_scale_factor=1,
    )
    yield found
    found.close()


def outside(page: Page) -> Iterator[str]:
    """Visit the pages that need no session; yields a name each time that a page is ready for its picture."""
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
    page.get_by_text("The username or the password is wrong. Check both.").wait_for()
    yield "sign-in-refused"
    page.goto("/reset-password#token=pr_shown")
    yield "reset-password"


def inside(page: Page) -> Iterator[str]:
    """Visit the pages that need a session; yields a name each time that a page is ready for its picture."""
    pages.sign_in(page, "ada.lovelace")
    pages.signed_in(page, "ada.lovelace")
    yield "home"
    page.get_by_role("button", name="Account of").click()
    page.get_by_text("Manage account").hover()
    yield "user-button"
    page.goto("/account")
    page.locator(".badge").wait_for()
    yield "account"
    page.get_by_role("button", name="Change password").click()
    page.get_by_label("Current password", exact=True).fill("mine")
    page.get_by_label("New password", exact=True).fill("mauve trombone cactus")
    yield "account-password"
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("button", name="Delete account").click()
    yield "account-delete"
    page.keyboard.press("Escape")
    page.goto("/")
    pages.signed_in(page, "ada.lovelace")
    page.evaluate(WARNING)
    yield "warning"
    page.evaluate("document.getElementById('ending').close()")
    page.get_by_role("button", name="Account of").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()


WARNING = """() => {
  const dialog = document.getElementById("ending");
  dialog.querySelector("h2").textContent = "Are you still there?";
  dialog.querySelector("p").textContent =
    "You will be signed out soon, because nobody used this device for a while.";
  dialog.querySelector(".countdown").textContent = "58 seconds";
  dialog.showModal();
}"""


def prepare(server: Server) -> None:
    """Create an account with devices that were used now and then."""
    own = server.sign_up("ada.lovelace", email="ada@example.com")
    httpx.post(f"{server.url}/logout", json={"refresh_token": own["refresh_token"]})
    for name, ip, seconds in DEVICES:
        server.log_in("ada.lovelace", device_name=name)
        moved = int(seconds * 1e6)
        past = f"last_seen_at = last_seen_at - {moved}, created_at = created_at - {9 * moved}"
        pages.change(server, "ada.lovelace", f"ip = '{ip}', {past}", device=name)


def take(browser: Browser, server: Server) -> None:
    for size in SIZES:
        for scheme in ("light", "dark"):
            with context(browser, server, size, scheme) as opened:
                page = opened.new_page()
                for part in (outside, inside):
                    for name in part(page):
                        file = FOLDER / f"{name}-{size}-{scheme}.png"
                        page.screenshot(path=file, full_page=name == "account", animations="disabled")
                        shrink(file)


def shrink(file: Path) -> None:
    if pngquant := shutil.which("pngquant"):
        subprocess.run([pngquant, "--force", "--skip-if-larger", "--ext=.png", "64", file], check=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "var", **BRAND) as server,
        sync_playwright() as playwright,
    ):
        prepare(server)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        take(browser, server)
        browser.close()


if __name__ == "__main__":
    main()
