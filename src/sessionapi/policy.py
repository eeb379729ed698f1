"""The rules of a session, as pure functions of (session, now, policy). Nothing here reads a clock or a row.

Durations are `timedelta`, from the settings of the same names (design 4.2).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic_core import from_json

from sessionapi.errors import FieldError, SessionExpired, SessionRevoked, ValidationFailed
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


def require_living(session: Session | None, now: datetime) -> Session:
    """Return an active session; SessionRevoked or SessionExpired, with the reason, for one that ended."""
    if session is None:
        raise SessionRevoked("revoked_by_admin")  # purged: it ended so long ago that its row is gone
    end = ended(session, now)
    if end is not None:
        raise (SessionRevoked if end.how == "revoked" else SessionExpired)(end.reason)
    return session


def access_token_expiry(end: datetime, now: datetime, policy: Policy) -> datetime:
    """When an access token made now dies: after its lifetime, or at the session's `end` if that is sooner."""
    return min(now + policy.access_token_ttl, end)


DIGEST_SIZE = 32
"""Letters of one digest of an `Idempotency-Key`: the first half of its SHA-256, in hex."""
KEPT_DIGESTS = 4
"""How many keys a rotation remembers: the first ones, so that nobody pushes the rotating client's key out."""

Outcome = Literal["renewal", "rotation", "repeat", "reuse"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a refresh presents. `retry_digest` is that of its `Idempotency-Key`, if it has one."""

    generation: int
    retry_digest: str | None = None
    active: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What a refresh leads to. `generation` is that of the token which the client then holds.

    The three flags say what is written beside a rotation: the idle clock moves, the key is kept, and a
    repeat came so late that the next rotation has to wait.
    """

    outcome: Outcome
    generation: int
    moves_idle_clock: bool = False
    keeps_key: bool = False
    marks_repeat: bool = False

    @property
    def writes(self) -> bool:
        """Whether anything is to be written; a plain renewal and a plain repeat only read."""
        beside = self.moves_idle_clock or self.keeps_key or self.marks_repeat
        return beside or self.outcome in ("rotation", "reuse")


def decide(session: Session, attempt: Attempt, now: datetime, policy: Policy) -> Decision:
    """Return what a refresh of a living session leads to (design 4.3, steps 3 to 6, in that order)."""
    presented, stored = attempt.generation, session.generation
    seen_late = attempt.active and now - session.last_seen_at >= _write_interval(session, policy)
    if presented > stored or (presented == stored and rotation_due(session, attempt, now, policy)):
        return Decision("rotation", presented + 1, moves_idle_clock=attempt.active)
    if presented == stored:
        return Decision("renewal", stored, moves_idle_clock=seen_late)
    in_grace = now - session.rotated_at <= policy.refresh_grace
    known = attempt.retry_digest is not None and attempt.retry_digest in digests(session)
    if presented == stored - 1 and (in_grace or known):
        room = len(digests(session)) < KEPT_DIGESTS
        return Decision(
            "repeat",
            stored,
            moves_idle_clock=seen_late,
            keeps_key=attempt.retry_digest is not None and not known and room,
            marks_repeat=not in_grace and session.repeated_at is None,
        )
    return Decision("reuse", stored)


def rotated(
    session: Session, attempt: Attempt, now: datetime, ip: str | None, auth_time: datetime
) -> Session:
    """Return a session after a rotation: what the statement writes into its row, and its `auth_time` there.

    What else may have changed since the session was read (a device's name, an idle clock that moved) is in
    no token.
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
    """Return whether the present refresh token is old enough to be replaced.

    Two rules keep a request that is still on its way from meeting a token two generations on: rotations lie
    at least three graces apart, and one waits three graces after a late repeat.
    """
    apart = 3 * policy.refresh_grace
    age = now - session.rotated_at
    if age < apart or (session.repeated_at is not None and now - session.repeated_at < apart):
        return False
    interval = _write_interval(session, policy)
    return age >= interval or (attempt.active and now - session.last_seen_at >= interval)


def digests(session: Session) -> tuple[str, ...]:
    """Return the digests of the keys that this rotation remembers."""
    text = session.retry_digests
    return tuple(text[start : start + DIGEST_SIZE] for start in range(0, len(text), DIGEST_SIZE))


def _write_interval(session: Session, policy: Policy) -> timedelta:
    """The least time between two writes: ROTATE_AFTER, but a tenth of the idle timeout if that is less."""
    tenth = timedelta(seconds=session.idle_timeout) / 10
    return max(min(policy.rotate_after, tenth), 3 * policy.refresh_grace)


MAX_OBJECT = 4096
"""Bytes of JSON that a session's data or a user's preferences may have."""
MAX_DEPTH = 32


def merge(target: Mapping[str, Any], patch: Mapping[str, Any], depth: int = 1) -> dict[str, Any]:
    """Return a JSON object with another merged into it (RFC 7396).

    A null removes, objects are merged, everything else replaces.
    """
    if depth > MAX_DEPTH:
        raise _unkept(f"Objects may be nested {MAX_DEPTH} deep at most.")
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            inner = merged.get(name)
            merged[name] = merge(inner if isinstance(inner, Mapping) else {}, value, depth + 1)
        else:
            merged[name] = value
    return merged


def same_json(one: object, other: object) -> bool:
    """Return whether two JSON values are the same; for Python `1 == True == 1.0`."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def bounded(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object that both engines can keep and that is small enough, else ValidationFailed.

    It is read as the store will read it, which takes 200 lists in each other: a row that can't be read would
    fail all that ask for it, an administrator's list and the refreshes of others among them.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
        from_json(text)
    except (ValueError, RecursionError):
        raise _unkept("A number or a text in it is not valid JSON, or it is nested too deep.") from None
    if "\\u0000" in text:
        raise _unkept("A text in it holds a NUL.")
    if size > MAX_OBJECT:
        raise _unkept(f"The whole object would have {size} bytes; at most {MAX_OBJECT} are kept.")
    return dict(value)


def _unkept(text: str) -> ValidationFailed:
    return ValidationFailed(text, [FieldError("data", "not_kept", text)])


def is_recent(auth_time: int, now: datetime, policy: Policy) -> bool:
    """Return whether a login (seconds since 1970) is recent enough for a sensitive change (ASVS 7.5.1)."""
    return now.timestamp() - auth_time < policy.recent_login.total_seconds()
