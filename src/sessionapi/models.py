"""The records of the product's domain. Secret fields are left out of the repr.

Records are never modified. `dataclasses.replace` creates a changed copy. The larger ones that each refresh
creates are not declared frozen, because creating a frozen one takes four times as long (measured).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

Item = TypeVar("Item")
Key = TypeVar("Key")

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
EndReason = Literal[RevokeReason, ExpireReason, "unknown"]
"""The reason in an error response. It is `unknown` once the row of an ended session has been purged."""
SessionKey = tuple[UUID, UUID]
"""(user id, session id), the primary key of a session."""

REVOCATION_WINDOW = timedelta(seconds=315)
"""The longest lifetime of an access token (300 s) plus 15 s.

After that time, none of the access tokens of an ended session is valid.
"""


@dataclass(frozen=True, slots=True)
class Client:
    """The sender of a request, for the list of devices and the audit log. Both fields may be unknown."""

    ip: str | None = None
    user_agent: str | None = None


@dataclass(slots=True)
class User:
    """An account. Any change that must invalidate earlier verifications increments `credential_version`."""

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
    """One login of one user on one device. `idle_timeout` is in seconds; every `*_at` is aware and in UTC."""

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
        """The time at which the session ends if it is not used again."""
        return self.last_seen_at + timedelta(seconds=self.idle_timeout)

    @property
    def ends_at(self) -> datetime:
        """The earlier of the idle and the absolute expiry, if the session is not used again."""
        return min(self.idle_expires_at, self.expires_at)


DIGEST_SIZE = 32
"""The length of the digest of an `Idempotency-Key`, which is the first half of its SHA-256 in hex."""
MAX_IDEMPOTENCY_KEYS = 4
"""Maximum number of keys that a session stores per rotation.

The first ones are kept, so that a later client cannot displace the key of the client that rotated the token.
"""

Outcome = Literal["renewal", "rotation", "repeat", "reuse"]


@dataclass(slots=True)
class Attempt:
    """The input of a refresh. `retry_digest` is the digest of its `Idempotency-Key`, if it has one."""

    generation: int
    retry_digest: str | None = None
    active: bool = True


@dataclass(slots=True)
class Decision:
    """The result of a refresh. `generation` is that of the refresh token that is returned.

    The three flags select further writes. `moves_idle_clock` restarts the idle timeout, `stores_key` stores
    the `Idempotency-Key`, and `records_late_repeat` records a repeat that came so late that the next rotation
    has to wait.
    """

    outcome: Outcome
    generation: int
    moves_idle_clock: bool = False
    stores_key: bool = False
    records_late_repeat: bool = False

    @property
    def writes(self) -> bool:
        """True if the refresh writes to the database. A plain renewal and a plain repeat only read."""
        flagged = self.moves_idle_clock or self.stores_key or self.records_late_repeat
        return flagged or self.outcome in ("rotation", "reuse")


@dataclass(frozen=True, slots=True)
class FailureCounter:
    """A counter of wrong passwords in the database. At most `quota` of them are allowed.

    It expires `kept` after the first wrong password. If `kept` is None, only a correct password, a new
    password or an administrator clears it.
    """

    key: bytes
    quota: int
    kept: timedelta | None


@dataclass(frozen=True, slots=True)
class FailureCounters:
    """The two counters of a login attempt: failures in the last minutes, and consecutive failures.

    `on` is what the failures are counted for, and what is locked after too many of them.
    """

    on: Literal["account", "device", "session"]
    recent: FailureCounter
    in_a_row: FailureCounter

    @property
    def both(self) -> tuple[FailureCounter, FailureCounter]:
        """Both counters in a fixed order, so that no two transactions wait for each other's rows."""
        first, second = sorted((self.recent, self.in_a_row), key=lambda bucket: bucket.key)
        return first, second


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key as stored. `private_key` is encrypted (AES-256-GCM, bound to the `kid`)."""

    id: UUID
    algorithm: Algorithm
    state: KeyState
    public_jwk: Mapping[str, Any]
    private_key: bytes = field(repr=False)
    created_at: datetime
    state_since: datetime


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the only algorithm that it may be used with."""

    kid: str
    algorithm: str
    public_key: Any


@dataclass(frozen=True, slots=True)
class RevokedSession:
    """A recently ended session, which every process and verifier has to refuse."""

    id: UUID
    reason: RevokeReason
    at: datetime


@dataclass(frozen=True, slots=True)
class RevocationMark:
    """One record that ends every session whose id is `up_to` or sorts before it.

    Session ids are UUIDv7, so they sort by the time at which the sessions began. `finished_at` is set when
    the rows of these sessions are marked as ended too.
    """

    up_to: UUID
    at: datetime
    reason: RevokeReason
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A named credential of another service. Only a digest of the token is stored."""

    id: UUID
    name: str
    digest: bytes = field(repr=False)
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the audit log. `audit.py` defines its kinds; `details` never contains a secret."""

    id: UUID
    at: datetime
    kind: str
    user_id: UUID | None
    session_id: UUID | None
    ip: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page(Generic[Item, Key]):
    """One page of a list. The next page begins after `next_key`, which is None on the last page."""

    items: list[Item]
    next_key: Key | None

    @classmethod
    def of(cls, rows: list[Item], limit: int, key: Callable[[Item], Key]) -> "Page[Item, Key]":
        """Return a page of at most `limit` rows. One more row than that means that there is a next page."""
        items = rows[:limit]
        return cls(items, key(items[-1]) if len(rows) > limit else None)
