"""Normalisation of names at sign-up, at sign-in, on the pages and on the command line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser

from sessionapi import identifiers
from sessionapi.errors import ValidationFailed
from tests.support.api_client import PASSWORD
from tests.support.app import Running, running
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.commands import Commands

PROPERTY = """name => {
  const matches = new RegExp(`^\\\\p{${name}}$`, "u");
  const found = [];
  for (let code = 0; code < 0x110000; code++) if (matches.test(String.fromCodePoint(code))) found.push(code);
  return found;
}"""
LETTERS = st.one_of(
    st.sampled_from("aAßſKÅΐΰᾳᾼͅͅıİiIςσΣẞﬁǅ@.+-_0²ªº\u0308\u0301\u0323\u0345ᏸꭰ"),
    st.characters(categories=["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"]),
)


async def test_spaces_around_a_name_are_removed_and_count_as_no_failure(make_settings, clock):
    """Fails without the strip in `identifiers.parse_name`: a pasted name locked its owner out."""
    async with running(make_settings(throttle=True), clock) as service:
        created = await service.sign_up("  ada\u00a0")
        assert created["user"]["username"] == "ada"
        for name in (" ada", "ada ", "\tada\r\n", "\u2003ada\u3000", "\u0085ada\u2028\u2029"):
            for _ in range(3):
                assert (await service.log_in(name))["user"]["id"] == created["user"]["id"]
        assert service.rows("select count(*) from password_tries") == [(0,)]


async def test_an_account_named_before_the_rule_was_narrowed_can_still_sign_in(service: Running):
    """Fails without `lookup_key`: neither its owner nor the administrator could reach the account."""
    await service.sign_up()
    old = "room\u0bf1"  # TAMIL NUMBER ONE HUNDRED: \\w, but not part of an identifier

    await _rename(service, old)
    assert (await service.log_in(old))["user"]["username"] == old
    assert (await service.container.accounts.find(old)).username == old


async def _rename(service: Running, name: str) -> None:
    async with service.container.store.begin() as tx:
        user = await tx.users.by_name("ada")
        assert user
        await tx.users.change(user.id, username=name, username_key=name.casefold())


def test_the_command_line_removes_spaces_around_a_name_too(commands: Commands):
    assert commands("users", "add", " ada ", given=PASSWORD).exit_code == 0
    assert commands("users", "show", "\u3000ada\n", "--json").exit_code == 0
    assert '"username": "ada"' in commands("users", "list", "--json").stdout


@given(st.text(LETTERS, min_size=1, max_size=20))
def test_the_key_of_a_name_is_stable_and_the_same_for_each_spelling(text: str):
    """Fails without the second NFKC in `identifiers.parse_name`."""
    try:
        name, key = identifiers.parse_name(text)
    except ValidationFailed:
        return
    assert identifiers.parse_name(name) == (name, key)
    assert identifiers.lookup_key(key) in (key, None)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert identifiers.lookup_key(unicodedata.normalize(form, text)) == key
    assert unicodedata.is_normalized("NFKC", key)


@pytest.mark.parametrize("marker", [pytest.param(None, marks=NEEDS_CHROMIUM)])
def test_the_table_of_ignorable_characters_is_that_of_a_browsers_unicode(browser: Browser, marker: None):
    """Compare our short table with another implementation of Unicode (ICU in Chromium)."""
    page = browser.new_page()
    ours = {code for first, last in identifiers.IGNORABLE for code in range(first, last + 1)}
    assert set(page.evaluate(PROPERTY, "Default_Ignorable_Code_Point")) == ours
    spaces = {chr(code) for code in page.evaluate(PROPERTY, "White_Space")}
    assert set(identifiers.WHITE_SPACE) == spaces
