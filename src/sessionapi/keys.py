"""What is done with signing keys: make the first one, load the ring."""

from collections.abc import Sequence

from sessionapi import ids, keyring
from sessionapi.clock import Clock
from sessionapi.errors import StartupError
from sessionapi.keyring import KeyRing, SecretDoesNotOpen
from sessionapi.model import Algorithm, KeyState, StoredKey
from sessionapi.storage import Store


class Keys:
    """The ring of this process and its rows. `sealing_keys` are derived from the server secrets."""

    def __init__(self, store: Store, ring: KeyRing, sealing_keys: Sequence[bytes], clock: Clock) -> None:
        self._store = store
        self._ring = ring
        self._sealing_keys = sealing_keys
        self._clock = clock

    async def ensure_active(self, algorithm: Algorithm) -> None:
        """Make the first key. Of several processes that try at once the unique index lets one through."""
        now = self._clock()
        async with self._store.begin() as tx:
            if not any(key.state == "active" for key in await tx.signing_keys()):
                await tx.insert_key(self._make(algorithm, "active"), now)

    async def load(self) -> None:
        """Take over the ring from the database; StartupError if our secret doesn't open it."""
        async with self._store.read() as tx:
            stored = await tx.signing_keys()
        try:
            self._ring.replace(keyring.unseal(self._sealing_keys, key) for key in stored)
        except SecretDoesNotOpen as problem:
            raise StartupError(
                f"SESSIONAPI_SECRET does not open the key ring (key {problem}): use the secret that this "
                "database was made with, or list it in SESSIONAPI_SECRET_ACCEPTED"
            ) from None

    def _make(self, algorithm: Algorithm, state: KeyState) -> StoredKey:
        key_id = ids.new_id()
        kid = ids.public("key", key_id)
        private = keyring.generate(algorithm)
        return StoredKey(
            id=key_id,
            algorithm=algorithm,
            state=state,
            public_jwk=keyring.public_jwk(kid, algorithm, private),
            sealed_private_key=keyring.seal(self._sealing_keys[0], kid, private),
            created_at=self._clock(),
        )
