"""JSON representations of accounts, sessions and events, shared by the HTTP API and the command line.

Only the fields listed here are exposed. Password hashes and digests never are.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sessionapi import ids
from sessionapi.models import Event, ServiceToken, Session, StoredKey, User

Members = Mapping[str, Any]


def naming(user: User) -> Members:
    """Represent a user as in the response to a login."""
    return {"id": ids.public("user", user.id), "username": user.username, "email": user.email}


def account(user: User) -> Members:
    """Represent the other fields of an account that its owner may see."""
    return {
        "roles": list(user.roles),
        "preferences": dict(user.preferences),
        "created_at": moment(user.created_at),
    }


def administered(user: User, *, locked: bool) -> Members:
    """Represent an account for administrators. `locked` means locked by too many wrong passwords."""
    return {
        **naming(user),
        **account(user),
        "claims": dict(user.claims),
        "disabled_at": moment(user.disabled_at) if user.disabled_at else None,
        "locked": locked,
    }


def session(session: Session) -> Members:
    """Represent a session by names and times, without its tokens."""
    return {
        "id": ids.public("sess", session.id),
        "device_name": session.device_name,
        "ip": session.ip,
        "created_at": moment(session.created_at),
        "last_seen_at": moment(session.last_seen_at),
        "idle_expires_at": moment(session.idle_expires_at),
        "expires_at": moment(session.expires_at),
    }


def event(event: Event) -> Members:
    """Represent a row of the audit log."""
    return {
        "id": ids.public("event", event.id),
        "at": moment(event.at),
        "kind": event.kind,
        "user_id": ids.public("user", event.user_id) if event.user_id else None,
        "session_id": ids.public("sess", event.session_id) if event.session_id else None,
        "ip": event.ip,
        "details": dict(event.details),
    }


def signing_key(key: StoredKey) -> Members:
    """Represent a signing key by its id, state and times, without the private key."""
    return {
        "kid": ids.public("key", key.id),
        "algorithm": key.algorithm,
        "state": key.state,
        "created_at": moment(key.created_at),
        "state_since": moment(key.state_since),
    }


def service_token(token: ServiceToken) -> Members:
    """Represent a service token by its name and times, without the token."""
    return {
        "name": token.name,
        "created_at": moment(token.created_at),
        "revoked_at": moment(token.revoked_at) if token.revoked_at else None,
    }


def moment(value: datetime) -> str:
    """Format a time as RFC 3339 text in UTC, to the second."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")
