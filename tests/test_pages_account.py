"""The account page: name, e-mail, password, devices, deletion, in a real browser."""

import os
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import pages
from tests.support.api_client import PASSWORD, bearer
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.pages import fill, says_why, sign_in, signed_in, visitor, wrong
from tests.support.server import Server, serving

pytestmark = NEEDS_CHROMIUM
NEW = "mauve trombone orbits a cactus"
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pages") / "var") as it:
        yield it


@pytest.fixture
def page(chromium: Browser, server: Server, request) -> Iterator[Page]:
    """The account page of a user who is named after the test."""
    with visitor(chromium, server) as it:
        server.sign_up(name_of(request))
        sign_in(it, name_of(request), start="/account")
        expect(it.locator(".device .badge")).to_have_text("This device")
        yield it


@pytest.fixture
def username(request) -> str:
    return name_of(request)


def name_of(request: pytest.FixtureRequest) -> str:
    return request.node.originalname.removeprefix("test_")


def edit(page: Page, what: str, **fields: str) -> None:
    page.get_by_role("button", name=f"Change {what}", exact=True).click()
    fill(page, **fields)
    page.locator("form:visible").locator("[type=submit]").click()


def said(page: Page, text: str) -> None:
    expect(page.locator("#toast")).to_have_text(text)


def devices(page: Page) -> list[str]:
    return page.locator(".device-name").all_inner_texts()


def test_the_name_changes_and_a_taken_one_is_told(page: Page, server: Server):
    server.sign_up("taken")
    edit(page, "username", new_username="Taken")
    assert wrong(page, "New username") == "This username is taken. Choose another."
    fill(page, new_username="grace.hopper")
    page.keyboard.press("Enter")
    said(page, "Your username is now grace.hopper.")
    expect(page.get_by_role("button", name="Change username")).to_be_focused()
    expect(page.get_by_role("button", name="Account of grace.hopper")).to_have_text("GH")
    page.reload()
    expect(page.locator(".row-value").first).to_have_text("grace.hopper")


def test_the_email_changes_and_goes(page: Page):
    value = page.locator(".row-value").nth(1)
    expect(value).to_have_text("None yet")
    page.get_by_role("button", name="Change e-mail").click()
    page.get_by_label("New e-mail").fill("nonsense")
    page.keyboard.press("Enter")
    assert wrong(page, "New e-mail") == "Use an address such as ada@example.com."
    page.get_by_label("New e-mail").fill("ada@example.com")
    page.keyboard.press("Enter")
    said(page, "Your e-mail is saved.")
    expect(value).to_have_text("ada@example.com")
    page.get_by_role("button", name="Change e-mail").click()
    page.keyboard.press("Enter")
    expect(value).to_have_text("None yet")


def test_a_change_long_after_the_login_asks_for_the_password(page: Page, server: Server, username: str):
    """Fails without withPassword in dialogs.js."""
    pages.age(server, username, auth_time=3600)
    page.reload()
    edit(page, "username", new_username="ada.later")
    dialog = page.get_by_role("dialog", name="Confirm it's you")
    expect(dialog.get_by_label("Password", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".row-value").first).to_have_text(username)
    page.locator("form:visible").locator("[type=submit]").click()
    dialog.get_by_label("Password", exact=True).fill("a wrong password")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("This is not your password.")).to_be_visible()
    dialog.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    said(page, "Your username is now ada.later.")


def test_the_password_changes_and_the_other_devices_are_out(page: Page, server: Server, username: str):
    other = server.log_in(username)
    edit(page, "password", current_password="not mine", new_password=NEW)
    assert wrong(page, "Current password") == "This is not your current password."
    fill(page, current_password=PASSWORD, new_password="short")
    page.keyboard.press("Enter")
    assert wrong(page, "New password") == "Use at least 8 characters."
    fill(page, new_password=NEW)
    page.keyboard.press("Enter")
    said(page, "Your password is changed. All other devices are signed out.")
    expect(page.locator(".device")).to_have_count(1)
    assert httpx.get(f"{server.url}/me", headers=bearer(other)).json()["reason"] == "password_changed"
    page.goto("/")
    signed_in(page, username)
    page.get_by_role("button", name="Account of").click()
    page.get_by_role("button", name="Sign out").click()
    says_why(page, "You are signed out.")
    sign_in(page, username, NEW)
    signed_in(page, username)


def test_one_device_is_signed_out_and_then_all_others(page: Page, server: Server, username: str):
    lost, kept = (server.log_in(username, device_name=name) for name in ("Lost phone", "Old laptop"))
    page.reload()
    expect(page.locator("#device-count")).to_have_text("4")
    assert devices(page)[0].endswith("This device")
    page.get_by_role("button", name="Sign out Lost phone, active just now").click()
    said(page, "Lost phone is signed out.")
    expect(page.locator("#device-count")).to_have_text("3")
    assert httpx.get(f"{server.url}/me", headers=bearer(lost)).json()["reason"] == "revoked_by_user"
    expect(page.get_by_role("button", name="Sign out Python HTTPX, active just now")).to_be_focused()
    page.get_by_role("button", name="Sign out all others").click()
    dialog = page.get_by_role("dialog", name="Sign out 2 other devices?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#device-count")).to_have_text("3")
    page.get_by_role("button", name="Sign out all others").click()
    dialog.get_by_role("button", name="Sign out all others").click()
    expect(page.locator("#device-count")).to_have_text("1")
    assert len(devices(page)) == 1
    assert httpx.get(f"{server.url}/me", headers=bearer(kept)).status_code == 401
    expect(page.get_by_role("button", name="Sign out all others")).to_be_hidden()


def test_the_account_is_deleted_after_a_question_and_the_password(page: Page, server: Server, username: str):
    pages.age(server, username, auth_time=3600)
    page.reload()
    page.get_by_role("button", name="Delete account").click()
    question = page.get_by_role("dialog", name="Delete your account?")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    question.get_by_role("button", name="Delete permanently").click()
    dialog = page.get_by_role("dialog", name="Confirm it's you")
    dialog.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    says_why(page, "The account was deleted.")
    sign_in(page, username)
    assert wrong(page, "Password") == "The username or the password is wrong. Check both."


@pytest.mark.prove
def test_a_hundred_devices_are_one_request_and_stay_readable(page: Page, server: Server, username: str):
    """Eight rows at first, and after a click all of them."""
    for number in range(98):
        server.log_in(username, device_name=f"Device number {number}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/sessions" in request.url else None)
    page.set_viewport_size(PHONE)
    page.reload()
    expect(page.locator("#device-count")).to_have_text("100")
    assert asked == [f"{server.url}/sessions?limit=100"]
    assert len(devices(page)) == 8
    assert devices(page)[0].endswith("This device")
    began = time.monotonic()
    page.get_by_role("button", name="Show all 100 devices").click()
    expect(page.locator(".device")).to_have_count(100)
    took = time.monotonic() - began
    expect(page.locator(".device").nth(8).get_by_role("button")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator(".device").nth(99).bounding_box()["height"] < 120
    if "SESSIONAPI_PROVE" in os.environ:
        assert took < 0.5
        began = time.monotonic()
        page.reload()
        expect(page.locator("#device-count")).to_have_text("100")
        assert time.monotonic() - began < 1


def test_the_user_button_opens_the_account_and_the_way_out(page: Page, server: Server, username: str):
    page.goto("/")
    signed_in(page, username)
    button = page.get_by_role("button", name="Account of")
    for _ in range(2):
        button.click()
        menu = page.locator("#user-menu")
        expect(menu.get_by_text(username)).to_be_visible()
        page.keyboard.press("Escape")
        expect(menu).to_be_hidden()
    button.click()
    menu.get_by_role("link", name="Manage account").click()
    expect(page).to_have_url(f"{server.url}/account")
    page.get_by_role("button", name="Account of").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    says_why(page, "You are signed out.")


def test_a_neighbour_in_the_same_browser_takes_the_pages_over(page: Page, server: Server):
    """Another user signs in in another tab. This one shows the new user only. Fails without the reload."""
    server.sign_up("neighbour", device_name="The neighbour's phone")
    tab = page.context.new_page()
    tab.goto("/docs")
    script = """async (body) => {
      const { createClient } = await import("/session-client.js");
      await createClient().signIn(body);
    }"""
    tab.evaluate(script, {"username": "neighbour", "password": PASSWORD})
    expect(page.locator(".row-value").first).to_have_text("neighbour")
    expect(page.locator(".device-name").last).to_have_text("The neighbour's phone")
