"""The kinds of audit events. Each event is written in the transaction of the change that it records."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sessionapi.ids import new_id
from sessionapi.models import Client, Event

Kind = Literal[
    "user.created",
    "user.changed",
    "user.disabled",
    "user.enabled",
    "user.deleted",
    "user.login_failed",
    "user.locked_out",
    "user.unlocked",
    "user.password_changed",
    "user.password_reset",
    "user.password_reset_token_made",
    "key.published",
    "key.activated",
    "key.dropped",
    "service_token.added",
    "service_token.revoked",
    "session.started",
    "session.ended",
    "session.generation_ahead",
    "session.repeated_elsewhere",
]


def event(
    kind: Kind,
    now: datetime,
    *,
    user_id: UUID | None = None,
    session_id: UUID | None = None,
    client: Client | None = None,
    details: Mapping[str, Any] | None = None,
) -> Event:
    """Return an event to store. `details` holds reasons and field names, never what a user typed."""
    ip = client.ip if client else None
    return Event(new_id(), now, kind, user_id, session_id, ip, details or {})
