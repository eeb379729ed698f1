"""Bounded cache of verified access tokens, so that the second check of a token costs only a look-up.

Anything that can change between two checks is checked each time: the key's state in the ring, and the time.
The caller, which has the list of ended sessions, checks whether the session has ended.
"""

from collections.abc import Callable
from datetime import datetime
from threading import Lock

from sessionapi.models import VerificationKey
from sessionapi.tokens import access_token
from sessionapi.tokens.access_token import Claims, TokenExpectations

SIZE = 4096
"""Maximum number of cached tokens, about 2 KiB each, so 8 MiB at most."""


class TokenCache:
    """Cache in front of `access_token.verify`.

    When it is full, the oldest entry is removed; tokens expire in that order anyway.
    """

    def __init__(
        self, find_key: Callable[[str], VerificationKey | None], rules: TokenExpectations, size: int = SIZE
    ) -> None:
        self._find_key = find_key
        self._rules = rules
        self._size = size
        self._entries: dict[str, tuple[Claims, VerificationKey]] = {}
        self._changing = Lock()

    def verify(self, token: str, now: datetime) -> Claims:
        """Return the claims of a token; raises the same errors as `access_token.verify`."""
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
