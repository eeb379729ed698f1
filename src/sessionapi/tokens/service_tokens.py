"""Credentials of other services: for asking what was revoked, and whether a token is good."""

from collections.abc import Callable

from sessionapi import audit, identifiers, ids
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, FieldError, InvalidToken, NotFound, ValidationFailed
from sessionapi.models import ServiceToken
from sessionapi.storage import Store, Transaction
from sessionapi.tokens import refresh_token

PREFIX = "st_"
MAX_NAME = 100


class ServiceTokens:
    """Service tokens in one store. Each is shown once; the row has a SHA-256 of its 32 random bytes."""

    def __init__(
        self, store: Store, clock: Clock, new_secret: Callable[[int], bytes] = ids.new_secret
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_secret = new_secret

    async def add(self, name: str) -> str:
        """Return a new token for the service of this name: 1 to 100 characters that can be printed."""
        printable = name.isprintable() and identifiers.invisible(name) is None
        if not (1 <= len(name) <= MAX_NAME and printable and name.strip() == name):
            text = f"A service's name has 1 to {MAX_NAME} printable characters, and no space around them."
            raise ValidationFailed(text, [FieldError("name", "not_kept", text)])
        text = PREFIX + self._new_secret(32).hex()
        token = ServiceToken(ids.new_id(), name, refresh_token.digest(text.encode()), self._clock())

        async def work(tx: Transaction) -> None:
            if not await tx.insert_service_token(token):
                raise Conflict(f"There is a living service token named {name!r}. Revoke it first.")
            await tx.record(audit.event("service_token.added", token.created_at, details={"name": name}))

        await self._store.run(work)
        return text

    async def all(self) -> list[ServiceToken]:
        """Return all tokens, revoked ones too, the oldest first."""
        async with self._store.read() as tx:
            return await tx.service_tokens()

    async def revoke(self, name: str) -> None:
        """Refuse the token of this name from now on; NotFound if no living one has it."""
        now = self._clock()

        async def work(tx: Transaction) -> None:
            if not await tx.revoke_service_token(name, now):
                raise NotFound(f"There is no living service token named {name!r}.")
            await tx.record(audit.event("service_token.revoked", now, details={"name": name}))

        await self._store.run(work)

    async def check(self, text: str) -> ServiceToken:
        """Return the token that a service presents; InvalidToken if it isn't a living one."""
        async with self._store.read() as tx:
            found = await tx.service_token(refresh_token.digest(text.encode()))
        if found is None:
            raise InvalidToken("This is not a living service token; see: sessionapi service-tokens")
        return found
