"""Session loader. Concurrent reads share one statement, and so do concurrent rotations."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sessionapi.models import Session, SessionKey, User
from sessionapi.sessions.batching import Batcher
from sessionapi.storage import Store, Transaction
from sessionapi.storage.session_batches import Rotation


class SessionLoader:
    """Batched reads and rotations of the sessions in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reads: Batcher[SessionKey, tuple[Session, User] | None] = Batcher(self._read_batch)
        self._rotations: Batcher[Rotation, datetime | None] = Batcher(self._rotate_batch)

    async def session_and_user(self, key: SessionKey) -> tuple[Session, User] | None:
        """Return a session with its user, or None if there is no such session."""
        return await self._reads.submit(key)

    async def rotate(self, rotation: Rotation) -> datetime | None:
        """Rotate a session and return its `auth_time`; None, with nothing written, if its row has changed."""
        return await self._rotations.submit(rotation)

    async def drain(self) -> None:
        """Wait for the batches that are under way."""
        await self._reads.drain()
        await self._rotations.drain()

    async def _read_batch(
        self, keys: Sequence[SessionKey]
    ) -> Sequence[tuple[Session, User] | Exception | None]:
        async with self._store.read() as tx:
            return await tx.session_batches.read(keys)

    async def _rotate_batch(self, rotations: Sequence[Rotation]) -> Sequence[datetime | None]:
        """Write the first rotation of each session. The others get None, because their row has changed.

        The commit does not wait for the disk, because losing a rotation logs no user out (design 4.3).
        """
        first: dict[SessionKey, Rotation] = {}
        for rotation in rotations:
            first.setdefault(rotation.key, rotation)

        async def work(tx: Transaction) -> Mapping[SessionKey, datetime]:
            await tx.commit_asynchronously()
            return await tx.session_batches.rotate(list(first.values()))

        auth_times = await self._store.run(work)
        return [auth_times.get(each.key) if first[each.key] is each else None for each in rotations]
