"""The rules of a session, as pure functions of (session, now, policy). Nothing here reads a clock or a row.

Durations are `timedelta`, from the settings of the same names (design 4.2).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sessionapi.model import ExpireReason, RevokeReason, Session


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers behind the rules."""

    access_token_ttl: timedelta = timedelta(seconds=60)
    idle_timeout: timedelta = timedelta(days=7)
    session_ttl: timedelta = timedelta(days=30)
    short_idle_timeout: timedelta = timedelta(hours=12)
    short_session_ttl: timedelta = timedelta(hours=24)
    rotate_after: timedelta = timedelta(seconds=600)
    refresh_grace: timedelta = timedelta(seconds=10)
    sessions_per_user: int = 100
    recent_login: timedelta = timedelta(seconds=300)

    def lifetimes(self, *, remember: bool) -> tuple[timedelta, timedelta]:
        """Return (idle timeout, absolute lifetime) of a session that starts now."""
        if remember:
            return self.idle_timeout, self.session_ttl
        return self.short_idle_timeout, self.short_session_ttl


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended: by somebody (`revoked`) or by time (`expired`)."""

    how: Literal["revoked", "expired"]
    reason: RevokeReason | ExpireReason


def idle_end(session: Session) -> datetime:
    """When the session ends if nobody is seen on it again."""
    return session.last_seen_at + timedelta(seconds=session.idle_timeout)


def ends_at(session: Session) -> datetime:
    """The nearer of the two ends, as things stand."""
    return min(idle_end(session), session.expires_at)


def ended(session: Session, now: datetime) -> Ended | None:
    """Return how the session has ended, or None while it lives. At the very end it has ended.

    Of two ends that have both passed, the earlier one is told: it is what the user met.
    """
    if session.revoked_at is not None:
        return Ended("revoked", session.revoke_reason or "revoked_by_admin")
    if now < ends_at(session):
        return None
    return Ended("expired", "idle" if idle_end(session) <= session.expires_at else "absolute")


def access_token_expiry(session: Session, now: datetime, policy: Policy) -> datetime:
    """When an access token made now dies: after its lifetime, or with the session if that is sooner."""
    return min(now + policy.access_token_ttl, ends_at(session))
