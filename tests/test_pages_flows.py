"""Signing up, signing in and a forgotten password, as users do it in a real browser."""

import os
import re
import unicodedata
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from sessionapi.users.password_policy import MIN_LENGTH
from tests.support import pages
from tests.support.api_client import PASSWORD, bearer
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.pages import fill, sign_in, signed_in, visitor, wrong
from tests.support.server import Server, serving
from tests.support.waiting import eventually

pytestmark = NEEDS_CHROMIUM
TTL = 10
LIFETIMES = 5 if "SESSIONAPI_PROVE" in os.environ else 1


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pages") / "var", access_token_ttl=TTL) as it:
        yield it


@pytest.mark.prove
def test_sign_up_then_a_second_tab_and_a_reload_after_the_tokens_life(chromium: Browser, server: Server):
    with visitor(chromium, server) as page:
        page.goto("/")
        page.get_by_role("link", name="Sign up").click()
        fill(page, username="ada", email="ada@example.com", password=PASSWORD)
        page.get_by_role("button", name="Create account").click()
        signed_in(page, "ada")
        second = page.context.new_page()
        second.goto("/")
        signed_in(second, "ada")
        for _ in range(LIFETIMES):
            token = pages.token_of(page.context, page)
            eventually(
                lambda token=token: (
                    httpx.get(f"{server.url}/protected", headers=bearer(token)).status_code == 401
                )
            )
        page.reload()
        signed_in(page, "ada")
        assert page.url == f"{server.url}/"


def test_sign_in_says_next_to_the_field_what_is_wrong(chromium: Browser, server: Server):
    server.sign_up("bob")
    with visitor(chromium, server) as page:
        page.goto("/sign-in")
        page.get_by_role("button", name="Continue").click()
        assert wrong(page, "Username") == "Enter your username."
        expect(page.get_by_text("Enter your password.")).to_be_visible()
        sign_in(page, "bob", "a wrong password")
        assert wrong(page, "Password") == "The username or the password is wrong. Check both."
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        expect(page.get_by_text("is wrong")).to_be_hidden()
        page.keyboard.press("Enter")
        signed_in(page, "bob")


def test_before_the_script_has_come_nothing_is_sent(chromium: Browser, server: Server):
    """Fails without `disabled` at the button: Enter would submit the form itself, and show JSON."""
    with visitor(chromium, server) as page:
        page.route("**/sign-in.js", lambda route: route.abort())
        page.goto("/sign-in")
        fill(page, username="ada", password=PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Continue")).to_be_disabled()
        page.unroute("**/sign-in.js")
        page.reload()
        expect(page.get_by_role("button", name="Continue")).to_be_enabled()


@pytest.mark.parametrize("path", ["/sign-in", "/sign-up"])
def test_a_script_that_comes_late_leaves_the_cursor_where_it_is(chromium: Browser, server: Server, path):
    """Fails without the `if` in `begin`: the rest of a password is typed into the name, for all to read."""
    with visitor(chromium, server) as page:
        held = []
        page.route(f"**{path}.js", lambda route: held.append(route))
        page.goto(path, wait_until="commit")
        page.get_by_label("Password", exact=True).press_sequentially("correct ")
        expect(page.locator("[type=submit]")).to_be_disabled()
        held[0].continue_()
        expect(page.locator("[type=submit]")).to_be_enabled()
        page.keyboard.type("horse")
        expect(page.get_by_label("Password", exact=True)).to_have_value("correct horse")
        page.unroute(f"**{path}.js")
        page.reload()
        expect(page.get_by_label("Username")).to_be_focused()


def test_sign_up_says_next_to_the_field_what_is_wrong(chromium: Browser, server: Server):
    server.sign_up("carol")
    with visitor(chromium, server) as page:
        page.goto("/sign-up")
        create = page.get_by_role("button", name="Create account")
        fill(page, username="Carol", password=PASSWORD)
        create.click()
        assert wrong(page, "Username") == "This username is taken. Choose another."
        fill(page, username="not a name")
        create.click()
        assert wrong(page, "Username") == "Use 1 to 150 letters, digits and @ . + - _"
        fill(page, username="carol2", email="nonsense")
        create.click()
        assert wrong(page, "E-mail") == "Use an address such as ada@example.com."
        fill(page, email="", password="password123")
        create.click()
        assert wrong(page, "Password").startswith("This is one of the most common passwords.")
        fill(page, password="carol2 carol2")
        create.click()
        assert wrong(page, "Password").startswith("The password contains your username.")


def test_the_service_away_is_said_and_loses_nothing(chromium: Browser, server: Server):
    with visitor(chromium, server) as page:
        page.goto("/sign-in")
        page.context.set_offline(True)
        fill(page, username="nobody", password=PASSWORD)
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("The service can't be reached.")
        assert page.get_by_label("Username").input_value() == "nobody"
        page.context.set_offline(False)
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("The username or the password is wrong. Check both.")).to_be_visible()


def test_too_many_tries_are_told_with_the_time_to_wait(chromium: Browser, tmp_path):
    with serving(tmp_path / "var", throttle="on", login_failures=3) as server, visitor(chromium, server) as p:
        for _ in range(4):
            sign_in(p, "ada", "a wrong password")
            p.wait_for_selector(".wrong:visible, .alert:visible")
        expect(p.get_by_role("alert")).to_have_text(
            re.compile(r"Too many attempts\. Try again in \d+ minutes\.")
        )


@pytest.mark.parametrize("remember", [True, False])
def test_the_cookie_goes_with_the_browser_unless_it_shall_stay(chromium: Browser, server: Server, remember):
    username = f"dora.{remember}"
    server.sign_up(username)
    with visitor(chromium, server) as page:
        page.goto("/sign-in")
        page.get_by_label("Stay signed in on this device").set_checked(remember)
        fill(page, username=username, password=PASSWORD)
        page.get_by_role("button", name="Continue").click()
        signed_in(page, username)
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
        assert (cookies["__Host-session"]["expires"] > 0) is remember


def test_after_the_sign_in_you_are_where_you_wanted_to_be(chromium: Browser, server: Server):
    server.sign_up("erin")
    with visitor(chromium, server) as page:
        page.goto("/account?tab=devices")
        expect(page).to_have_url(f"{server.url}/sign-in?next=%2Faccount%3Ftab%3Ddevices")
        page.get_by_role("link", name="Sign up").click()
        page.get_by_role("link", name="Sign in").click()
        fill(page, username="erin", password=PASSWORD)
        page.get_by_role("button", name="Continue").click()
        expect(page).to_have_url(f"{server.url}/account?tab=devices")
        page.go_back()  # the sign-in page isn't in the way
        assert "/sign-in" not in page.url


def test_a_password_manager_is_led_through_the_sign_in_to_the_change(chromium: Browser, server: Server):
    server.sign_up("finn")
    with visitor(chromium, server) as page:
        sign_in(page, "finn", start="/.well-known/change-password")
        expect(page.get_by_label("Current password", exact=True)).to_be_focused()
        assert page.url == f"{server.url}/account#password"
        wanted = {
            "username": "username",
            "current-password": "current-password",
            "new-password": "new-password",
        }
        form = page.locator("#password-form")
        for name in wanted:
            expect(form.locator(f"[autocomplete={name}]")).to_have_count(1)
        assert form.locator("[autocomplete=username]").input_value() == "finn"


def test_passwords_can_be_shown_and_pasted(chromium: Browser, server: Server):
    with visitor(chromium, server, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto("/sign-up")
        page.evaluate("text => navigator.clipboard.writeText(text)", PASSWORD)
        field = page.get_by_label("Password", exact=True)
        field.focus()
        page.keyboard.press("Control+V")
        assert field.input_value() == PASSWORD
        reveal = page.get_by_role("button", name="Show password")
        reveal.click()
        expect(field).to_have_attribute("type", "text")
        expect(reveal).to_have_attribute("aria-pressed", "true")
        reveal.click()
        expect(field).to_have_attribute("type", "password")


def test_the_rules_for_a_password_are_shown_and_its_length_is_checked(chromium: Browser, server: Server):
    """Fails without `watchLength` in forms.js."""
    with visitor(chromium, server) as page:
        page.goto("/sign-up")
        described = (
            page.get_by_label("Password", exact=True).get_attribute("aria-describedby") or ""
        ).split()
        assert "password-rules" in described
        length, others = page.locator("#password-rules li").all()
        expect(others).to_contain_text("The service checks this when you send it.")
        for password, says in [
            ("", "At least 8 characters"),
            ("short", "At least 8 characters"),
            ("x" * MIN_LENGTH, "At least 8 characters: met"),
            ("x" * (MIN_LENGTH - 1), "At least 8 characters"),
            (PASSWORD, "At least 8 characters: met"),
        ]:
            fill(page, password=password)
            expect(length).to_have_text(says)
            expect(length).to_have_class("met" if says.endswith("met") else "")


def test_a_password_that_only_the_server_refuses_is_explained_next_to_it(chromium: Browser, server: Server):
    with visitor(chromium, server) as page:
        page.goto("/sign-up")
        for password, says in [("password1", "common"), ("gwen.stacy99!X", "contains your username")]:
            fill(page, username="gwen.stacy", password=password)
            page.get_by_role("button", name="Create account").click()
            assert says in wrong(page, "Password")
            expect(page.locator("#password-rules li").first).to_have_class("met")


def test_a_sign_in_in_another_tab_leads_this_one_on_too(chromium: Browser, server: Server):
    server.sign_up("hugo")
    with visitor(chromium, server) as page:
        waiting = page.context.new_page()
        waiting.goto("/sign-in?next=/account")
        sign_in(page, "hugo")
        signed_in(page, "hugo")
        expect(waiting).to_have_url(f"{server.url}/account")


def test_a_forgotten_password_is_set_anew_with_the_link_of_an_administrator(
    chromium: Browser, server: Server
):
    server.sign_up("iris")
    link = re.search(
        r"http\S+/reset-password#token=\S+", pages.command(server, "users", "reset-password", "iris")
    )
    assert link
    with visitor(chromium, server) as page:
        page.goto(link.group())
        assert "token" not in page.url  # it isn't in the history either
        set_it = page.get_by_role("button", name="Set password")
        fill(page, new_password="iris iris")
        set_it.click()
        assert wrong(page, "New password").startswith("The password contains your username.")
        fill(page, new_password="mauve trombone orbits a cactus")
        set_it.click()
        pages.says_why(page, "Your password was reset. Sign in with the new one.")
        sign_in(page, "iris", "mauve trombone orbits a cactus")
        signed_in(page, "iris")
        page.goto(link.group())
        fill(page, new_password="mauve trombone orbits two cacti")
        set_it.click()
        expect(page.get_by_role("alert")).to_contain_text(
            "This link has been used or is older than 30 minutes."
        )
        page.goto("/reset-password")
        expect(page.get_by_text("the link is incomplete. Open the whole link")).to_be_visible()


@pytest.mark.parametrize("path", ["/sign-in", "/sign-up", "/reset-password"])
def test_without_javascript_a_sentence_says_so(chromium: Browser, server: Server, path):
    with visitor(chromium, server, java_script_enabled=False) as page:
        page.goto(path)
        assert "These pages need JavaScript" in page.locator("noscript").inner_text()
        expect(page.locator("form")).to_be_hidden()


def test_fields_cut_nothing_and_count_as_the_server_does(chromium: Browser, server: Server):
    """Fails with `maxlength` in fields.html: it counts UTF-16 units, and silently cut a pasted text."""
    emoji, decomposed = "🐎" * 256, unicodedata.normalize("NFD", "ż" * 256)
    with visitor(chromium, server) as page:
        page.goto("/sign-up")
        fill(page, username="  हिन्दी\u3000", password=emoji)
        page.get_by_role("button", name="Create account").click()
        signed_in(page, "हिन्दी")
    assert server.post("/login", username="हिन्दी", password=emoji).status_code == 200
    with visitor(chromium, server) as page:
        sign_in(page, " हिन्दी ", emoji)
        signed_in(page, "हिन्दी")
    for number, (name, password, label, says) in enumerate(
        [
            ("long", emoji + "x", "Password", "Use at most 256 characters. This has 257."),
            ("long", decomposed + "x", "Password", "Use at most 256 characters. This has 257."),
            ("x" * 151, PASSWORD, "Username", "Use at most 150 characters. This has 151."),
            (" \u3000 ", PASSWORD, "Username", "Enter your username."),
            ("a\u200bda", PASSWORD, "Username", "Remove the invisible character U+200B."),
            ("\u0301ada", PASSWORD, "Username", "A combining mark must follow a letter or a digit."),
            ("ada lovelace", PASSWORD, "Username", "Use 1 to 150 letters, digits and @ . + - _"),
        ]
    ):
        with visitor(chromium, server) as page:
            page.goto("/sign-up")
            fill(page, username=name, password=password)
            page.get_by_role("button", name="Create account").click()
            assert wrong(page, label) == says, number
            assert page.get_by_label(label, exact=True).input_value() in (name, password)
    with visitor(chromium, server) as page:
        page.goto("/sign-up")
        fill(page, username="composed", password=decomposed)
        page.get_by_role("button", name="Create account").click()
        signed_in(page, "composed")
    with visitor(chromium, server) as page:
        sign_in(page, "composed", "ż" * 256)
        signed_in(page, "composed")


def test_the_length_of_a_password_counts_a_letter_with_its_mark_once(chromium: Browser, server: Server):
    """Fails without NFC in `length` of forms.js."""
    with visitor(chromium, server) as page:
        page.goto("/sign-up")
        fill(page, password=unicodedata.normalize("NFD", "żóćę"))
        expect(page.locator("#password-rules li").first).to_have_text("At least 8 characters")
        fill(page, password=unicodedata.normalize("NFD", "żóćężóćę"))
        expect(page.locator("#password-rules li").first).to_have_text("At least 8 characters: met")
