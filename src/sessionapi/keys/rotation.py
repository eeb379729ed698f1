"""Key rotation: make, publish, promote, retire, drop and re-encrypt signing keys, and load the ring.

A change is one guarded statement, or two in one transaction. So several processes and the command line may
attempt the same change at once. One of them succeeds, and the others find that it has been made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, NotFound, StartupError
from sessionapi.keys import keyring
from sessionapi.keys.keyring import DecryptionFailed, KeyRing, SigningKey
from sessionapi.models import REVOCATION_WINDOW, Algorithm, KeyState, StoredKey
from sessionapi.storage import Store, Transaction


@dataclass(slots=True)
class Keys:
    """The key ring of this process and its rows.

    `sealing_keys` are derived from the server secrets. A next key is published for `published_for` before it
    signs, so that clients that cache the JWKS have it by then. The active key is replaced at `max_age`.
    """

    store: Store
    ring: KeyRing
    sealing_keys: Sequence[bytes] = field(repr=False)
    clock: Clock
    algorithm: Algorithm
    published_for: timedelta
    max_age: timedelta

    async def ensure_active(self) -> None:
        """Make the first key of an empty ring. If several processes try, the unique index admits one."""

        async def work(tx: Transaction) -> None:
            if not any(key.state == "active" for key in await tx.signing_keys.all()):
                await tx.signing_keys.insert(self._make("active"))

        await self.store.run(work)

    async def load(self) -> None:
        """Load the ring from the database; StartupError if our secret does not decrypt it."""
        self.take(await self.all())

    def take(self, stored: Sequence[StoredKey]) -> None:
        """Replace the ring with these rows; only keys that are new to this process are decrypted."""
        self.ring.replace([self._open(key) for key in stored if key.state != "dropped"])

    async def all(self) -> list[StoredKey]:
        """Return the whole ring, oldest first, including dropped keys."""
        async with self.store.read() as tx:
            return await tx.signing_keys.all()

    async def publish(self) -> StoredKey:
        """Return the next key, which is in the JWKS but does not sign yet. It is made if necessary."""
        made = self._make("next")

        async def work(tx: Transaction) -> bool:
            inserted = await tx.signing_keys.insert(made)
            if inserted:
                await self._record_event(tx, "key.published", made)
            return inserted

        if await self.store.run(work):
            return made
        return next(key for key in await self.all() if key.state == "next")

    def due_at(self, key: StoredKey) -> datetime:
        """Return when a next key has been published for long enough to sign."""
        return key.state_since + self.published_for

    async def promote(self, *, early: bool = False) -> StoredKey | None:
        """Let the next key sign and retire the active one; None without a next key or before it is due.

        `early` is for emergencies. Verifiers that cache the JWKS then receive tokens whose key they still
        have to fetch.
        """
        now = self.clock()

        async def work(tx: Transaction) -> StoredKey | None:
            ring = await tx.signing_keys.all(lock=True)
            key = next((key for key in ring if key.state == "next"), None)
            if key is None or (now < self.due_at(key) and not early):
                return None
            await self._activate(tx, key, now)
            return key

        return await self.store.run(work)

    async def rotate_now(self) -> StoredKey | None:
        """Replace the active key at once."""
        await self.publish()
        return await self.promote(early=True)

    async def drop(self, kid: str) -> None:
        """Drop a leaked key and refuse all its tokens at once; NotFound if it is not in the ring.

        Its private key is wiped. If it was the active one, the next key signs from now on, or a new one.
        """
        key_id, now = ids.parse("key", kid), self.clock()

        async def work(tx: Transaction) -> None:
            ring = await tx.signing_keys.all(lock=True)
            key = next((key for key in ring if key.id == key_id), None)
            if key is None or not await tx.signing_keys.drop(key.id, now):
                raise NotFound(
                    f"There is no key {kid} in the ring. To list the keys, run: sessionapi keys list"
                )
            await self._record_event(tx, "key.dropped", key)
            if key.state == "active":
                following = next((key for key in ring if key.state == "next"), None)
                if following is None:
                    await tx.signing_keys.insert(self._make("active"))
                else:
                    await self._activate(tx, following, now)

        await self.store.run(work)

    async def reencrypt(self) -> int:
        """Encrypt all private keys with the current server secret; return how many there were."""

        async def work(tx: Transaction) -> int:
            changed = 0
            for stored in await tx.signing_keys.all(lock=True):
                if stored.state != "dropped":
                    key = self._open(stored)
                    sealed = keyring.seal(self.sealing_keys[0], key.kid, key.private_key)
                    changed += await tx.signing_keys.reseal(stored, sealed)
            return changed

        return await self.store.run(work)

    async def abandon(self) -> None:
        """Drop the keys that our secret does not decrypt.

        This is for a server secret that is lost, or that leaked together with the database.
        """
        now = self.clock()

        async def work(tx: Transaction) -> None:
            for key in await tx.signing_keys.all(lock=True):
                if key.state != "dropped" and not self._opens(key):
                    await tx.signing_keys.drop(key.id, now)
                    await self._record_event(tx, "key.dropped", key)

        await self.store.run(work)

    def _opens(self, stored: StoredKey) -> bool:
        try:
            self._open(stored)
        except StartupError:
            return False
        return True

    async def keep_up(self) -> None:
        """Rotate by age, finish rotations that have begun, and delete keys whose last token has expired."""
        now, ring = self.clock(), await self.all()
        active = next(key for key in ring if key.state == "active")
        following = next((key for key in ring if key.state == "next"), None)
        if following is None and now >= active.state_since + self.max_age - self.published_for:
            await self.publish()
        elif following is not None and now >= self.due_at(following):
            await self.promote()
        if any(key.state == "retired" and key.state_since < now - REVOCATION_WINDOW for key in ring):
            await self.store.run(lambda tx: tx.signing_keys.delete_retired(now - REVOCATION_WINDOW))

    async def _activate(self, tx: Transaction, key: StoredKey, now: datetime) -> None:
        """Let this next key sign. Raises Conflict, which rolls back, if another process was faster."""
        await tx.signing_keys.retire_active(now)
        if not await tx.signing_keys.activate(key.id, now):
            raise Conflict
        await self._record_event(tx, "key.activated", key)

    async def _record_event(self, tx: Transaction, kind: audit.Kind, key: StoredKey) -> None:
        details = {"kid": ids.public("key", key.id)}
        await tx.events.add(audit.event(kind, self.clock(), details=details))

    def _open(self, stored: StoredKey) -> SigningKey:
        known = self.ring.opened(stored)
        if known is not None:
            return known
        try:
            return keyring.unseal(self.sealing_keys, stored)
        except DecryptionFailed as problem:
            raise StartupError(
                f"SESSIONAPI_SECRET does not open the key ring (key {problem}): use the secret that this "
                "database was created with, or add it to SESSIONAPI_SECRET_ACCEPTED; if it is lost, see "
                "sessionapi keys abandon --help"
            ) from None

    def _make(self, state: KeyState) -> StoredKey:
        key_id, now = ids.new_id(), self.clock()
        kid = ids.public("key", key_id)
        private = keyring.generate(self.algorithm)
        return StoredKey(
            id=key_id,
            algorithm=self.algorithm,
            state=state,
            public_jwk=keyring.public_jwk(kid, self.algorithm, private),
            private_key=keyring.seal(self.sealing_keys[0], kid, private),
            created_at=now,
            state_since=now,
        )
