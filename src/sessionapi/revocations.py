"""The sessions that were ended lately, in memory, so that their access tokens are refused without a query."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from sessionapi import ids
from sessionapi.clock import Clock
from sessionapi.model import RevokeReason

WINDOW = timedelta(seconds=315)
"""The longest access token (300 s) and 15 s: after that no token of an ended session is alive."""


class Revocations:
    """Ended session ids with their reasons; what is older than the window is dropped as new ones come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reasons: dict[str, tuple[RevokeReason, datetime]] = {}

    def add(self, session_ids: Iterable[UUID], reason: RevokeReason) -> None:
        """Refuse the access tokens of these sessions from now on."""
        now = self._clock()
        self._drop_older_than(now - WINDOW)
        for session_id in session_ids:
            self._reasons[ids.public("sess", session_id)] = (reason, now)

    def reason(self, session_id: str) -> RevokeReason | None:
        """Return how a session was ended, by its outside id, or None."""
        found = self._reasons.get(session_id)
        return found[0] if found else None

    def _drop_older_than(self, moment: datetime) -> None:
        # In the order in which they were added: the old ones are in front.
        old = []
        for session_id, (_, at) in self._reasons.items():
            if at >= moment:
                break
            old.append(session_id)
        for session_id in old:
            del self._reasons[session_id]
