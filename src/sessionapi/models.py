"""The records that the product is about. Secret fields have no repr.

Nothing changes a record: `dataclasses.replace` makes another one. `User` and `Session` are not declared as
frozen, because each refresh makes one of each, and a frozen one takes four times as long (measured).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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

REVOCATION_WINDOW = timedelta(seconds=315)
"""The longest access token (300 s) and 15 s: after that no token of an ended session is valid."""


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

    @property
    def idle_expires_at(self) -> datetime:
        """When the session ends if it is not used again."""
        return self.last_seen_at + timedelta(seconds=self.idle_timeout)

    @property
    def ends_at(self) -> datetime:
        """The nearer of the two ends, as things stand."""
        return min(self.idle_expires_at, self.expires_at)


DIGEST_SIZE = 32
"""Letters of one digest of an `Idempotency-Key`: the first half of its SHA-256, in hex."""
MAX_IDEMPOTENCY_KEYS = 4
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
    stores_key: bool = False
    records_late_repeat: bool = False

    @property
    def writes(self) -> bool:
        """Whether anything is to be written; a plain renewal and a plain repeat only read."""
        beside = self.moves_idle_clock or self.stores_key or self.records_late_repeat
        return beside or self.outcome in ("rotation", "reuse")


@dataclass(frozen=True, slots=True)
class FailureCounter:
    """One count of wrong passwords in the database: at most `quota` until `kept` after the first of them.

    Without `kept` only a right password, a new one or an administrator clears it.
    """

    key: bytes
    quota: int
    kept: timedelta | None


@dataclass(frozen=True, slots=True)
class FailureCounters:
    """The two counts that a try falls under: those of the last minutes, and those in a row.

    `on` says what is throttled, and what a lock would lock.
    """

    on: Literal["account", "device", "session"]
    recent: FailureCounter
    in_a_row: FailureCounter

    @property
    def both(self) -> tuple[FailureCounter, FailureCounter]:
        """The two in one order for everybody, so that no two transactions wait for each other's rows."""
        first, second = sorted((self.recent, self.in_a_row), key=lambda bucket: bucket.key)
        return first, second


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
class RevokedSession:
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
