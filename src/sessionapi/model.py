"""The records that the product is about. Secret fields have no repr.

Nothing changes a record: `dataclasses.replace` makes another one. `User` and `Session` are not declared as
frozen, because each refresh makes one of each, and a frozen one takes four times as long (measured).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

Transport = Literal["body", "cookie"]
KeyState = Literal["next", "active", "retired", "dropped"]
Algorithm = Literal["ES256", "RS256"]
RevokeReason = Literal[
    "logout",
    "revoked_by_user",
    "revoked_by_admin",
    "password_changed",
    "password_reset",
    "user_disabled",
    "user_deleted",
    "session_limit",
    "replaced",
    "refresh_reuse",
]
ExpireReason = Literal["idle", "absolute"]


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, for the list of devices and the audit log; both parts may be unknown."""

    ip: str | None = None
    user_agent: str | None = None


@dataclass(slots=True)
class User:
    """An account. `credential_version` moves with every change that must end what was verified before it."""

    id: UUID
    username: str
    email: str | None
    password_hash: str | None = field(repr=False)
    credential_version: int
    roles: tuple[str, ...]
    claims: Mapping[str, Any]
    preferences: Mapping[str, Any]
    created_at: datetime
    disabled_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(slots=True)
class Session:
    """One login of one user on one device. `idle_timeout` is in seconds; every `*_at` is aware, in UTC."""

    user_id: UUID
    id: UUID
    generation: int
    secret_digest: bytes = field(repr=False)
    rotated_at: datetime
    repeated_at: datetime | None
    retry_digests: str = field(repr=False)
    created_at: datetime
    auth_time: datetime
    last_seen_at: datetime
    idle_timeout: int
    expires_at: datetime
    revoked_at: datetime | None
    revoke_reason: RevokeReason | None
    ip: str | None
    user_agent: str | None
    device_name: str | None
    amr: tuple[str, ...]
    transport: Transport
    remember: bool


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key as the database has it: the private part is sealed (AES-256-GCM, bound to the `kid`)."""

    id: UUID
    algorithm: Algorithm
    state: KeyState
    public_jwk: Mapping[str, Any]
    sealed_private_key: bytes = field(repr=False)
    created_at: datetime
    state_since: datetime


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key with the only algorithm that it verifies."""

    kid: str
    algorithm: str
    public_key: Any


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that was ended lately, as every process and verifier has to know it."""

    id: UUID
    reason: RevokeReason
    at: datetime


@dataclass(frozen=True, slots=True)
class RevocationMark:
    """One record that ends many sessions: all whose id is `up_to` or sorts before it.

    Session ids are UUIDv7, so they sort by the time at which the sessions began. `finished_at` is None until
    the rows of these sessions say so too.
    """

    up_to: UUID
    at: datetime
    reason: RevokeReason
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A credential of another service, by the name that it was given; of its text only a digest is kept."""

    id: UUID
    name: str
    digest: bytes = field(repr=False)
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the audit log. `details` is closed by `audit.py` and never holds a secret."""

    id: UUID
    at: datetime
    kind: str
    user_id: UUID | None
    session_id: UUID | None
    ip: str | None
    details: Mapping[str, Any]
