"""Revocation marks: end very many sessions at once with one row, then update their rows in batches.

The mark is one row, committed before anything else. From then on, in every process, the statements that renew
or change a session refuse all sessions up to the mark. Access tokens are refused from the next poll on. The
rows of the sessions follow in batches of short transactions, so memory is bounded and other requests can
write in between. If the process is killed, any running server writes the remaining rows within five minutes.

Which sessions are ended depends on their ids alone, not on the clocks of hosts. The mark is at least as great
as the id of every session in the database. A session that is inserted after the mark was committed gets a
greater id (`SessionQueries.insert`). So no earlier session remains active, and a later login is not
ended.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sessionapi import audit, ids
from sessionapi.clock import Clock, whole_millisecond
from sessionapi.models import REVOCATION_WINDOW, RevocationMark, RevokeReason, SessionKey
from sessionapi.sessions.revocations import Revocations
from sessionapi.storage import Store, Transaction
from sessionapi.storage.marks import FIRST_KEY

BATCH = 500
"""Rows per transaction, which takes some 20 ms."""

Progress = Callable[[int], None]
"""Called after each batch with the number of sessions ended so far."""


@dataclass(slots=True)
class Marks:
    """The marks of one store, and the updates of the rows that they end."""

    store: Store
    revocations: Revocations
    clock: Clock
    batch: int = BATCH

    async def end_all(self, reason: RevokeReason) -> None:
        """End all existing sessions. Those of logins that begin after this call are not affected."""

        async def work(tx: Transaction) -> None:
            await tx.users.lock_all()  # first, so that no write is under way and the newest id is final
            now = self.clock()
            newest = await tx.marks.newest_session_id()
            marks = await tx.marks.all()
            at_least = [ids.last_id_at(max(now, await tx.now() or now))]
            at_least += [ids.last_id_of_next_millisecond(mark.up_to) for mark in marks[:1]]
            at_least += [newest] if newest else []
            await self._insert(tx, RevocationMark(max(at_least), _free_time(now, marks), reason))

        await self.store.run(work)

    async def end_older(self, created_before: datetime, reason: RevokeReason) -> None:
        """End all sessions whose id is from an earlier millisecond than `created_before`."""
        up_to = ids.last_id_before(created_before)

        async def work(tx: Transaction) -> None:
            await tx.users.lock_all()
            marks = await tx.marks.all()
            if not marks or marks[0].up_to < up_to:
                await self._insert(tx, RevocationMark(up_to, _free_time(self.clock(), marks), reason))

        await self.store.run(work)

    async def finish(self, progress: Progress | None = None) -> int:
        """Update the rows of the sessions that the greatest mark ends; return how many it has ended.

        The result is 0 if all of them were updated before. Several processes may do this at once. Between two
        batches it pauses for as long as the last one took, so that the transactions of requests get half of
        the time.
        """
        async with self.store.read() as tx:
            marks = await tx.marks.all()
        if not marks or marks[0].finished_at is not None:
            return 0
        ended, after = 0, FIRST_KEY
        while True:
            began = time.monotonic()
            keys = await self._end_batch(marks[0], after)
            if not keys:
                break
            ended, after = ended + len(keys), keys[-1]
            if progress:
                progress(ended)
            await asyncio.sleep(time.monotonic() - began)
        return await self.store.run(lambda tx: self._finish(tx, marks[0]))

    async def tidy(self) -> None:
        """Update the rows that a killed command left, and delete old marks that a greater one covers."""
        await self.finish()
        async with self.store.read() as tx:
            marks = await tx.marks.all()
        oldest = self.clock() - 2 * REVOCATION_WINDOW
        if old := [mark for mark in marks[1:] if mark.at < oldest]:
            await self.store.run(lambda tx: tx.marks.delete(old))

    async def _insert(self, tx: Transaction, mark: RevocationMark) -> None:
        await tx.marks.insert(mark)
        tx.on_commit(lambda: self.revocations.add_mark(mark))

    async def _finish(self, tx: Transaction, mark: RevocationMark) -> int:
        await tx.marks.finish(mark.up_to, self.clock())
        return await tx.marks.count_sessions(mark)

    async def _end_batch(self, mark: RevocationMark, after: SessionKey) -> list[SessionKey]:
        """End one batch of rows, and record each of the sessions in the audit log."""
        now = self.clock()

        async def work(tx: Transaction) -> list[SessionKey]:
            keys = await tx.marks.end_sessions(mark, now, self.batch, after)
            details = {"reason": mark.reason}
            await tx.events.add(
                *(
                    audit.event("session.ended", now, user_id=user_id, session_id=session_id, details=details)
                    for user_id, session_id in keys
                )
            )
            return keys

        return await self.store.run(work)


def _free_time(now: datetime, marks: Sequence[RevocationMark]) -> datetime:
    """Return a time that no other mark has.

    It cannot be the time of an individual revocation either, because that is a whole millisecond.
    """
    taken = {mark.at for mark in marks}
    at = whole_millisecond(now) + timedelta(microseconds=1)
    while at in taken:
        at += timedelta(microseconds=1)
    return at
