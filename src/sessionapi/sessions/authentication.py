"""Authentication by access token, from memory alone, so that a check costs no query."""

import time
from dataclasses import dataclass, field

from sessionapi import ids
from sessionapi.clock import Clock
from sessionapi.errors import AuthenticationError, InvalidToken, SessionRevoked, TryLater, UnknownKey
from sessionapi.keys.keyring import KeyRing
from sessionapi.models import User
from sessionapi.sessions.revocations import Revocations
from sessionapi.sessions.sync import StateSync
from sessionapi.storage import Store
from sessionapi.tokens.access_token import Claims, TokenExpectations, verify
from sessionapi.tokens.cache import TokenCache


@dataclass(slots=True)
class Authenticator:
    """Verifies access tokens against the key ring, the clock and the recently ended sessions."""

    store: Store
    ring: KeyRing
    rules: TokenExpectations
    revocations: Revocations
    state_sync: StateSync
    clock: Clock
    _cache: TokenCache = field(init=False)

    def __post_init__(self) -> None:
        self._cache = TokenCache(self.ring.find, self.rules)

    async def check(self, access_token: str) -> Claims:
        """Return the claims of an access token of an active session, else raise the reason."""
        try:
            claims = self._cache.verify(access_token, self.clock())
        except UnknownKey as unknown:
            await self._look_for(unknown)
            claims = self._cache.verify(access_token, self.clock())
        reason = self.revocations.reason(claims.session_id)
        if reason is not None:
            raise SessionRevoked(reason)
        return claims

    async def genuine(self, access_token: str) -> Claims:
        """Return the claims of a token that we issued, even an expired one. This is enough for a logout."""

        def verified() -> Claims:
            return verify(access_token, self.ring.find, self.rules, self.clock(), expired_ok=True)

        try:
            return verified()
        except UnknownKey as unknown:
            await self._look_for(unknown)
            return verified()

    async def introspect(self, text: str) -> tuple[Claims, User] | None:
        """Return the claims of a valid access token and its user's current row; None if it is not valid.

        Introspection also reads the rows (RFC 7662), so a session that another process has just ended counts
        as ended.
        """
        try:
            claims = await self.check(text)
        except AuthenticationError:
            return None
        user_id, session_id = ids.parse("user", claims.user_id), ids.parse("sess", claims.session_id)
        if user_id is None or session_id is None:
            return None
        async with self.store.read() as tx:
            found = await tx.sessions.get_with_user(user_id, session_id)
        if found is None or found[0].revoked_at is not None or found[1].disabled_at is not None:
            return None
        return claims, found[1]

    async def _look_for(self, unknown: UnknownKey) -> None:
        """Read the key ring again, because another process may have just changed it."""
        if ids.parse("key", unknown.kid) is None:
            raise unknown
        try:
            await self.state_sync.fresher_than(time.monotonic())
        except TryLater:
            raise InvalidToken from unknown
