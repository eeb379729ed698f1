"""Recently ended sessions, in memory, so that their access tokens are refused without a query.

A session that is ended individually has an entry for as long as one of its access tokens could be valid. When
many sessions end at once, one mark stands for all of them. It ends every session whose id is equal to the
mark's or sorts before it. An id begins with the time at which its session began, and ids sort the same as
text and as bytes, so a check is one comparison. Comparing `iat` would not work, because a process that has
not yet read the mark may issue a token for an old session after it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from pydantic_core import to_json

from sessionapi import ids
from sessionapi.clock import Clock, whole_millisecond
from sessionapi.models import REVOCATION_WINDOW, RevocationMark, RevokedSession, RevokeReason


class Revocations:
    """Ended sessions with their reasons, from this process and, through the poll, from all others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended_at: dict[UUID, datetime] = {}
        self._reasons: dict[str, RevokeReason] = {}
        self._digest = 0
        self._mark: RevocationMark | None = None
        self._marked_up_to = ""
        self._body: tuple[str, bytes] | None = None

    def add(self, session_ids: Iterable[UUID], reason: RevokeReason) -> None:
        """Refuse the access tokens of these sessions from now on. No mark has the time of these entries."""
        now = whole_millisecond(self._clock())
        self._note(RevokedSession(session_id, reason, now) for session_id in session_ids)

    def add_mark(self, mark: RevocationMark) -> None:
        """Refuse the access tokens of all sessions up to a mark; a smaller mark changes nothing."""
        if self._mark is None or mark.up_to > self._mark.up_to:
            self._mark, self._marked_up_to = mark, ids.public("sess", mark.up_to)

    def take(self, ended: Iterable[RevokedSession], marks: Sequence[RevocationMark] = ()) -> None:
        """Add sessions that ended here or elsewhere, and drop entries that are older than the window.

        The call is idempotent. A session that a mark has ended needs no entry.
        """
        for mark in marks:
            self.add_mark(mark)
        self._note(ended)
        self._forget(self._clock() - REVOCATION_WINDOW, {mark.at for mark in marks})

    def reason(self, session_id: str) -> RevokeReason | None:
        """Return the reason why a session was ended, by its public id, or None."""
        reason = self._reasons.get(session_id)
        if reason is None and self._mark is not None and session_id <= self._marked_up_to:
            return self._mark.reason
        return reason

    def all(self) -> Mapping[str, RevokeReason]:
        """Return the sessions that were ended individually within the window: public ids with reasons."""
        return dict(self._reasons)

    @property
    def mark(self) -> tuple[str, RevokeReason] | None:
        """Public id up to which all sessions are ended, with the reason."""
        return None if self._mark is None else (self._marked_up_to, self._mark.reason)

    @property
    def version(self) -> str:
        """Version string that changes with the entries and the mark, and is the same in every process."""
        text = f"{self._digest:x}.{self._marked_up_to}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def body(self, keys: str) -> bytes:
        """Return the JSON of `/revocations`, cached per version; `keys` is the version of the key ring."""
        version = f"{self.version}.{keys}"
        if self._body is None or self._body[0] != version:
            revoked = [{"session_id": each, "reason": reason} for each, reason in self._reasons.items()]
            members = {"revoked": revoked, "keys": keys, "window": int(REVOCATION_WINDOW.total_seconds())}
            if self.mark is not None:
                members["revoked_up_to"] = dict(zip(("session_id", "reason"), self.mark, strict=True))
            self._body = version, to_json(members)
        return self._body[1]

    def _note(self, ended: Iterable[RevokedSession]) -> None:
        for session in ended:
            if session.id not in self._ended_at:
                self._ended_at[session.id] = session.at
                self._reasons[ids.public("sess", session.id)] = session.reason
                self._digest ^= _digest(session.id)

    def _forget(self, moment: datetime, marked_at: set[datetime]) -> None:
        dropped = [each for each, at in self._ended_at.items() if at < moment or at in marked_at]
        for session_id in dropped:
            del self._ended_at[session_id]
            del self._reasons[ids.public("sess", session_id)]
            self._digest ^= _digest(session_id)


def _digest(session_id: UUID) -> int:
    """Return a 256-bit digest of an id. The XOR of several digests does not depend on their order."""
    return int.from_bytes(hashlib.sha256(session_id.bytes).digest())
