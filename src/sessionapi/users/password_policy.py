"""Rules for new passwords, with the message for each rule (ASVS 6.2, NIST SP 800-63B-4 section 3.1.1).

Length and guessability count; no rule requires particular kinds of characters. The comparisons ignore case,
width and composition, but the password is hashed exactly as received.
"""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sessionapi import identifiers
from sessionapi.errors import FieldError, WeakPassword

MIN_LENGTH, MAX_LENGTH = 8, 256
"""Length in characters (ASVS 6.2.1, 6.2.9: a minimum of 8, and a maximum of at least 64)."""
MIN_PART = 4
"""Shorter names are not searched for, because too many good passwords contain them."""
COMMON = frozenset(Path(__file__).with_name("common_passwords.txt").read_text("utf-8").splitlines())
"""Common passwords (ASVS 6.2.4) of at least the minimum length. `.ci/common_passwords.py` makes the file."""

IsBreached = Callable[[str], Awaitable[bool]]


async def never_breached(password: str) -> bool:  # noqa: ARG001
    """Return False for every password, because the look-up is off."""
    return False


@dataclass(slots=True)
class PasswordRules:
    """The password rules of one installation; `product_names` are the names that its users know it by."""

    product_names: Sequence[str]
    is_breached: IsBreached = never_breached

    async def refuse_weak(
        self, password: str, username: str, email: str | None, field: str = "password"
    ) -> None:
        """Raise WeakPassword with every broken rule; the breach look-up runs only if all others pass."""
        self.refuse_guessable(password, username, email, field)
        if any(await asyncio.gather(*map(self.is_breached, identifiers.spellings(password)))):
            text = "This password has appeared in a data breach. Choose one that you use nowhere else."
            raise _weak(field, [("breached", text)])

    def refuse_guessable(
        self, password: str, username: str, email: str | None, field: str = "password"
    ) -> None:
        """Raise WeakPassword if a rule that needs no look-up is broken."""
        broken = list(self._broken(password, username, email or ""))
        if broken:
            raise _weak(field, broken)

    def _broken(self, password: str, username: str, email: str) -> Iterator[tuple[str, str]]:
        folded = _fold(password)
        if identifiers.length(password) < MIN_LENGTH:
            yield (
                "too_short",
                f"Use at least {MIN_LENGTH} characters.",
            )
        if identifiers.length(password) > MAX_LENGTH:
            yield "too_long", f"Use at most {MAX_LENGTH} characters."
        if folded in COMMON:
            yield "too_common", "This is one of the most common passwords. Use four random words instead."
        if _holds(folded, username):
            yield "contains_username", "The password contains your username. Use unrelated words."
        if _holds(folded, email) or _holds(folded, email.rpartition("@")[0]):
            yield "contains_email", "The password contains your e-mail address. Use unrelated words."
        if any(_holds(folded, name) for name in self.product_names):
            yield "contains_product", "The password contains the name of this service. Use unrelated words."


def _weak(field: str, broken: Sequence[tuple[str, str]]) -> WeakPassword:
    return WeakPassword(broken[0][1], [FieldError(field, code, text) for code, text in broken])


def _holds(folded: str, part: str) -> bool:
    """Return whether the password contains a name, either as it is or with its spaces removed."""
    found = _fold(part)
    return any(len(each) >= MIN_PART and each in folded for each in (found, "".join(found.split())))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
