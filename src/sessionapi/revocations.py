"""The sessions that were ended lately, in memory, so that their access tokens are refused without a query."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sessionapi import ids
from sessionapi.clock import Clock
from sessionapi.model import EndedSession, RevokeReason

WINDOW = timedelta(seconds=315)
"""The longest access token (300 s) and 15 s: after that no token of an ended session is alive."""


class Revocations:
    """Ended sessions with their reasons, from this process and, by the poll, from all others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended_at: dict[UUID, datetime] = {}
        self._reasons: dict[str, RevokeReason] = {}
        self._version: str | None = None

    def add(self, session_ids: Iterable[UUID], reason: RevokeReason) -> None:
        """Refuse the access tokens of these sessions from now on."""
        now = self._clock()
        self._note(EndedSession(session_id, reason, now) for session_id in session_ids)

    def take(self, ended: Iterable[EndedSession]) -> None:
        """Take over what was ended, here or elsewhere, and forget what is older than the window.

        Doing so twice changes nothing.
        """
        self._note(ended)
        self._drop_older_than(self._clock() - WINDOW)

    def reason(self, session_id: str) -> RevokeReason | None:
        """Return how a session was ended, by its outside id, or None."""
        return self._reasons.get(session_id)

    def all(self) -> Mapping[str, RevokeReason]:
        """Return the whole window: outside ids with their reasons."""
        return dict(self._reasons)

    @property
    def version(self) -> str:
        """A text that is the same as long as the window is, in every process."""
        if self._version is None:
            self._version = hashlib.sha256(",".join(sorted(self._reasons)).encode()).hexdigest()[:32]
        return self._version

    def _note(self, ended: Iterable[EndedSession]) -> None:
        for session in ended:
            if session.id not in self._ended_at:
                self._ended_at[session.id] = session.at
                self._reasons[ids.public("sess", session.id)] = session.reason
                self._version = None

    def _drop_older_than(self, moment: datetime) -> None:
        for session_id in [each for each, at in self._ended_at.items() if at < moment]:
            del self._ended_at[session_id]
            del self._reasons[ids.public("sess", session_id)]
            self._version = None
