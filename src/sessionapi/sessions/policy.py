"""Session rules, as pure functions of (session, now, policy). Nothing here reads a clock or a row.

Durations are `timedelta`, from the settings of the same names (design 4.2).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sessionapi.errors import SessionExpired, SessionRevoked
from sessionapi.models import (
    DIGEST_SIZE,
    MAX_IDEMPOTENCY_KEYS,
    Attempt,
    Decision,
    EndReason,
    Session,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Durations and limits that the rules use."""

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
    """The end of a session: `revoked` by a user or an administrator, or `expired` over time."""

    how: Literal["revoked", "expired"]
    reason: EndReason


def ended(session: Session, now: datetime) -> Ended | None:
    """Return how the session has ended, or None while it is active. At exactly `ends_at` it has ended.

    If both the idle and the absolute end have passed, the earlier one is reported, because that is the one
    the user ran into.
    """
    if session.revoked_at is not None:
        return Ended("revoked", session.revoke_reason or "unknown")
    if now < session.ends_at:
        return None
    return Ended("expired", "idle" if session.idle_expires_at <= session.expires_at else "absolute")


def ensure_active(session: Session | None, now: datetime) -> Session:
    """Return an active session; raise SessionRevoked or SessionExpired, with the reason, for an ended one."""
    if session is None:
        raise SessionRevoked("unknown")  # purged: it ended so long ago that its row was deleted
    end = ended(session, now)
    if end is not None:
        raise (SessionRevoked if end.how == "revoked" else SessionExpired)(end.reason)
    return session


def decide(session: Session, attempt: Attempt, now: datetime, policy: Policy) -> Decision:
    """Decide the outcome of a refresh of an active session (design 4.3, steps 3 to 6, in that order)."""
    presented, stored = attempt.generation, session.generation
    seen_late = attempt.active and now - session.last_seen_at >= _write_interval(session, policy)
    if presented > stored or (presented == stored and rotation_due(session, attempt, now, policy)):
        return Decision("rotation", presented + 1, moves_idle_clock=attempt.active)
    if presented == stored:
        return Decision("renewal", stored, moves_idle_clock=seen_late)
    in_grace = now - session.rotated_at <= policy.refresh_grace
    known = attempt.retry_digest is not None and attempt.retry_digest in digests(session)
    if presented == stored - 1 and (in_grace or known):
        room = len(digests(session)) < MAX_IDEMPOTENCY_KEYS
        return Decision(
            "repeat",
            stored,
            moves_idle_clock=seen_late,
            stores_key=attempt.retry_digest is not None and not known and room,
            records_late_repeat=not in_grace and session.repeated_at is None,
        )
    return Decision("reuse", stored)


def rotated(
    session: Session, attempt: Attempt, now: datetime, ip: str | None, auth_time: datetime
) -> Session:
    """Return a session after a rotation, as the statement writes it, with the `auth_time` of its row.

    Other columns that may have changed since the session was read (a device name, a later idle time) are not
    part of any token.
    """
    return replace(
        session,
        auth_time=auth_time,
        generation=attempt.generation + 1,
        rotated_at=now,
        repeated_at=None,
        retry_digests=attempt.retry_digest or "",
        ip=ip,
        last_seen_at=now if attempt.active else session.last_seen_at,
    )


def rotation_due(session: Session, attempt: Attempt, now: datetime, policy: Policy) -> bool:
    """Return whether the current refresh token is old enough to be replaced.

    Two rules ensure that a request still in transit never meets a token two generations ahead. Rotations are
    at least three grace periods apart, and after a late repeat a rotation waits for three grace periods.
    """
    apart = 3 * policy.refresh_grace
    age = now - session.rotated_at
    if age < apart or (session.repeated_at is not None and now - session.repeated_at < apart):
        return False
    interval = _write_interval(session, policy)
    return age >= interval or (attempt.active and now - session.last_seen_at >= interval)


def digests(session: Session) -> tuple[str, ...]:
    """Return the digests of the idempotency keys stored since the last rotation."""
    text = session.retry_digests
    return tuple(text[start : start + DIGEST_SIZE] for start in range(0, len(text), DIGEST_SIZE))


def _write_interval(session: Session, policy: Policy) -> timedelta:
    """Minimum time between two writes: ROTATE_AFTER, or a tenth of the idle timeout if that is shorter."""
    tenth = timedelta(seconds=session.idle_timeout) / 10
    return max(min(policy.rotate_after, tenth), 3 * policy.refresh_grace)


def is_recent(auth_time: int, now: datetime, policy: Policy) -> bool:
    """Return whether a login (seconds since 1970) is recent enough for a sensitive change (ASVS 7.5.1)."""
    return now.timestamp() - auth_time < policy.recent_login.total_seconds()
