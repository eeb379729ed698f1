"""Authentication by access token, from memory alone, so that a check costs no query."""

import time

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


class Authenticator:
    """Verifies access tokens against the key ring, the clock and the recently ended sessions."""

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        rules: TokenExpectations,
        revocations: Revocations,
        state_sync: StateSync,
        clock: Clock,
    ) -> None:
        self._store = store
        self._ring = ring
        self._rules = rules
        self._revocations = revocations
        self._state_sync = state_sync
        self._clock = clock
        self._cache = TokenCache(ring.find, rules)

    async def check(self, access_token: str) -> Claims:
        """Return the claims of an access token of an active session, else raise the reason."""
        try:
            claims = self._cache.verify(access_token, self._clock())
        except UnknownKey as unknown:
            await self._look_for(unknown)
            claims = self._cache.verify(access_token, self._clock())
        reason = self._revocations.reason(claims.session_id)
        if reason is not None:
            raise SessionRevoked(reason)
        return claims

    async def genuine(self, access_token: str) -> Claims:
        """Return the claims of a token that we issued, even an expired one. This is enough for a logout."""

        def verified() -> Claims:
            return verify(access_token, self._ring.find, self._rules, self._clock(), expired_ok=True)

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
        async with self._store.read() as tx:
            found = await tx.sessions.get_with_user(user_id, session_id)
        if found is None or found[0].revoked_at is not None or found[1].disabled_at is not None:
            return None
        return claims, found[1]

    async def _look_for(self, unknown: UnknownKey) -> None:
        """Read the key ring again, because another process may have just changed it."""
        if ids.parse("key", unknown.kid) is None:
            raise unknown
        try:
            await self._state_sync.fresher_than(time.monotonic())
        except TryLater:
            raise InvalidToken from unknown
