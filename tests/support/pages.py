"""The steps that users take on the pages, for tests in a real browser."""

import operator
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.api_client import PASSWORD
from tests.support.database import rows
from tests.support.server import Server
from tests.support.settings import environment

PUBLIC = ("/sign-in", "/sign-up", "/reset-password#token=pr_none")
GATED = ("/", "/account")
SIGNED_IN = "Hello, {}"


@contextmanager
def visitor(browser: Browser, server: Server, **more: Any) -> Iterator[Page]:
    """A new browser without cookies. A script error or a violation of the policy fails the test."""
    context = browser.new_context(base_url=server.url, **more)
    said: list[str] = []
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on("console", lambda message: said.append(message.text) if "Policy" in message.text else None)
    yield context.new_page()
    context.close()
    assert said == []


def fill(page: Page, **fields: str) -> None:
    """Fill fields by their labels: `current_password` is "Current password"."""
    for name, value in fields.items():
        label = "E-mail" if name == "email" else name.replace("_", " ").capitalize()
        page.get_by_label(label, exact=True).fill(value)


def sign_in(page: Page, username: str, password: str = PASSWORD, start: str = "/sign-in") -> None:
    page.goto(start)
    fill(page, username=username, password=password)
    page.get_by_role("button", name="Continue").click()


def signed_in(page: Page, username: str) -> None:
    """Wait until the protected page greets the user and has called the API."""
    expect(page.get_by_role("heading", level=1)).to_have_text(SIGNED_IN.format(username))
    expect(page.locator("[data-member=data]")).to_have_text("Protected data")


def says_why(page: Page, words: str, timeout: float = 10_000) -> None:
    """Wait for the sign-in page that shows a reason."""
    expect(page.locator(".notice")).to_have_text(words, timeout=timeout)
    assert "/sign-in" in page.url


def wrong(page: Page, label: str) -> str:
    """Return the text that stands next to a field and is linked to it for screen readers."""
    field = page.get_by_label(label, exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    named = (field.get_attribute("aria-describedby") or "").split()[0]
    return page.locator(f"#{named}").inner_text()


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the contrast of two colours in sRGB (WCAG 2.2), from 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Sequence[int]) -> float:
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(map(operator.mul, (0.2126, 0.7152, 0.0722), linear))


def token_of(context: BrowserContext, page: Page) -> str:
    """Return the access token that the protected page sends."""
    with page.expect_request("**/protected") as asked:
        page.get_by_role("button", name="Request again").click()
    return asked.value.headers["authorization"].removeprefix("Bearer ")


def ends_of(server: Server, username: str) -> set[str | None]:
    """Return the end reasons of a user's sessions; None for an active one."""
    whose = f"join users on users.id = user_id where username = '{username}'"
    found = rows(f"sqlite:///{server.data}/sessionapi.db", f"select revoke_reason from sessions {whose}")
    return {reason for (reason,) in found}


def command(server: Server, *arguments: str) -> str:
    """Run the command line on the server's data, as its operator does."""
    done = subprocess.run(
        [sys.executable, "-m", "sessionapi", *arguments],
        env={**os.environ, **environment(server.data, public_url=server.url)},
        cwd=server.data.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def age(server: Server, username: str, **columns: float) -> None:
    """Make the sessions of a user older: each given time goes back by that many seconds."""
    moves = ", ".join(f"{name} = {name} - {int(seconds * 1e6)}" for name, seconds in columns.items())
    change(server, username, moves)


def change(server: Server, username: str, columns: str, device: str = "%") -> None:
    """Change the rows of a user's sessions, on one device or on all, as if time had passed."""
    with closing(sqlite3.connect(server.data / "sessionapi.db", timeout=30)) as database, database:
        where = "user_id = (select id from users where username = ?) and device_name like ?"
        done = database.execute(f"update sessions set {columns} where {where}", (username, device))
        assert done.rowcount
