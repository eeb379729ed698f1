"""A bounded memory of verified access tokens: the second check of a token costs a look-up.

What can change between two checks is asked each time: the key's state in the ring, and the time. (Whether
the session has ended is asked by whoever holds the list of ended sessions.)
"""

from collections.abc import Callable
from datetime import datetime
from threading import Lock

from sessionapi.models import VerificationKey
from sessionapi.tokens import access_token
from sessionapi.tokens.access_token import Claims, TokenExpectations

SIZE = 4096
"""Tokens that are remembered: about 2 KiB each, so 8 MiB at most."""


class TokenCache:
    """`tokens.verify` with a memory. Of a full one the oldest entry goes: tokens die in that order anyway."""

    def __init__(
        self, find_key: Callable[[str], VerificationKey | None], rules: TokenExpectations, size: int = SIZE
    ) -> None:
        self._find_key = find_key
        self._rules = rules
        self._size = size
        self._entries: dict[str, tuple[Claims, VerificationKey]] = {}
        self._changing = Lock()

    def verify(self, token: str, now: datetime) -> Claims:
        """Return the claims of a token; raises what `tokens.verify` does."""
        entry = self._entries.get(token)
        if entry is None:
            return self._first(token, now)
        claims, key = entry
        if self._find_key(key.kid) is not key:
            self._forget(token)
            return self._first(token, now)
        moment = now.timestamp()
        if access_token.is_ahead(claims, self._rules, moment):  # the clock was set back
            return self._first(token, now)
        access_token.refuse_expired(claims, self._rules, moment)
        return claims

    def _first(self, token: str, now: datetime) -> Claims:
        claims = access_token.verify(token, self._find_key, self._rules, now)
        key = self._find_key(access_token.key_id(token))
        if key is not None:
            with self._changing:
                while len(self._entries) >= self._size:
                    del self._entries[next(iter(self._entries))]
                self._entries[token] = (claims, key)
        return claims

    def _forget(self, token: str) -> None:
        with self._changing:
            self._entries.pop(token, None)

    def __len__(self) -> int:
        return len(self._entries)
