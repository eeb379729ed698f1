"""The text of a refresh token: one spelling, made with a key, unguessable."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionapi import ids
from sessionapi.tokens import refresh_token
from sessionapi.tokens.refresh_token import RefreshToken
from sessionapi.tokens.signed_tokens import TokenFormat

KEY, OTHER = b"k" * 32, b"o" * 32
TOKEN = RefreshToken(UUID(int=1), UUID(int=2), 7, b"s" * 16)
TEXT = refresh_token.mint(TOKEN, KEY)


@given(st.uuids(), st.uuids(), st.integers(0, 2**48 - 1), st.binary(min_size=16, max_size=16))
def test_what_is_minted_is_matched(user, session, generation, secret):
    token = RefreshToken(user, session, generation, secret)
    assert refresh_token.match(refresh_token.mint(token, KEY), [OTHER, KEY]) == token


def test_another_key_does_not_match():
    """Fails without the comparison of the HMAC."""
    assert refresh_token.match(TEXT, [OTHER]) is None
    assert refresh_token.match(TEXT, []) is None


@pytest.mark.parametrize("position", range(len(TEXT)))
def test_no_letter_can_be_changed(position):
    for letter in "A_-x=+/ é":
        if letter != TEXT[position]:
            changed = TEXT[:position] + letter + TEXT[position + 1 :]
            assert refresh_token.match(changed, [KEY]) is None


@given(st.text(max_size=200))
def test_no_text_is_taken_by_chance(text):
    assert refresh_token.match(text, [KEY]) is None


@pytest.mark.parametrize("text", [TEXT + "=", TEXT + "A", TEXT[:-1], TEXT.upper(), " " + TEXT, TEXT + "\n"])
def test_there_is_one_spelling(text):
    assert refresh_token.match(text, [KEY]) is None


def test_another_version_is_not_taken():
    values = (bytes(16), bytes(16), bytes(6), bytes(16))
    newer, same = (TokenFormat("sr_", version, "16s16s6s16s").sign(KEY, *values) for version in (2, 1))
    assert refresh_token.match(newer, [KEY]) is None
    assert refresh_token.match(same, [KEY]) is not None


def test_a_secret_has_128_random_bits_and_is_not_shown():
    assert len({ids.new_secret() for _ in range(100)}) == 100
    assert len(ids.new_secret()) == 16
    assert "ssss" not in repr(TOKEN)
