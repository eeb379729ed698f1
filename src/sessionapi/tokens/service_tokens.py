"""Service tokens: credentials with which other services read revocations and introspect tokens."""

from sessionapi import audit, identifiers, ids
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, FieldError, InvalidToken, NotFound, ValidationFailed
from sessionapi.models import ServiceToken
from sessionapi.storage import Store, Transaction

PREFIX = "st_"
MAX_NAME = 100


class ServiceTokens:
    """Service tokens in one store. Each has 32 random bytes and is shown once; its row has its SHA-256."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def add(self, name: str) -> str:
        """Return a new token for the service of this name, which has 1 to 100 printable characters."""
        printable = name.isprintable() and identifiers.invisible(name) is None
        if not (1 <= len(name) <= MAX_NAME and printable and name.strip() == name):
            text = f"Use 1 to {MAX_NAME} printable characters, without a space before or after them."
            raise ValidationFailed(text, [FieldError("name", "not_kept", text)])
        text = PREFIX + ids.new_secret(32).hex()
        token = ServiceToken(ids.new_id(), name, ids.digest(text.encode()), self._clock())

        async def work(tx: Transaction) -> None:
            if not await tx.service_tokens.insert(token):
                raise Conflict(f"There is already an active service token named {name!r}. Revoke it first.")
            await tx.events.add(audit.event("service_token.added", token.created_at, details={"name": name}))

        await self._store.run(work)
        return text

    async def all(self) -> list[ServiceToken]:
        """Return all tokens, including revoked ones, oldest first."""
        async with self._store.read() as tx:
            return await tx.service_tokens.all()

    async def revoke(self, name: str) -> None:
        """Revoke the token of this name from now on; NotFound if there is no active one."""
        now = self._clock()

        async def work(tx: Transaction) -> None:
            if not await tx.service_tokens.revoke(name, now):
                raise NotFound(f"There is no active service token named {name!r}.")
            await tx.events.add(audit.event("service_token.revoked", now, details={"name": name}))

        await self._store.run(work)

    async def check(self, text: str) -> ServiceToken:
        """Return the active token that a service presents, else raise InvalidToken."""
        async with self._store.read() as tx:
            found = await tx.service_tokens.by_digest(ids.digest(text.encode()))
        if found is None:
            raise InvalidToken(
                "This is not an active service token. To list them, run: sessionapi service-tokens list"
            )
        return found
