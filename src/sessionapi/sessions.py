"""What is done with sessions: start one, make its tokens, check them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sessionapi import audit, ids, policy, refresh_token, tokens
from sessionapi.clock import Clock
from sessionapi.keyring import KeyRing
from sessionapi.model import Client, Session, Transport, User
from sessionapi.policy import Policy
from sessionapi.refresh_token import RefreshToken
from sessionapi.storage import Store, Tx
from sessionapi.tokens import Claims, Rules, VerificationKey


@dataclass(frozen=True, slots=True)
class Device:
    """What a login says of the device that it happens on."""

    client: Client
    remember: bool = True
    transport: Transport = "body"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client is given. `expires_in` and `session_expires_in` are seconds from now."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str = field(repr=False)
    session_expires_in: int
    expires_absolutely_in: int
    session: Session
    user: User


class Sessions:
    """Sessions in one store. `refresh_keys` are derived from the server secrets, the present one's first."""

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        rules: Rules,
        the_policy: Policy,
        refresh_keys: Sequence[bytes],
        clock: Clock,
        new_secret: Callable[[], bytes] = ids.new_secret,
    ) -> None:
        self._store = store
        self._ring = ring
        self._rules = rules
        self._policy = the_policy
        self._refresh_keys = refresh_keys
        self._clock = clock
        self._new_secret = new_secret

    async def start(self, tx: Tx, user: User, device: Device, now: datetime) -> Tokens:
        """Insert a new session of a user whose row is locked, and return its tokens.

        A login always starts a session of its own and never adopts one that was sent along (ASVS 7.2.4).
        """
        secret = self._new_secret()
        session = self._new_session(user.id, secret, device, now)
        await tx.insert_session(session)
        await tx.record(
            audit.event("session.started", now, user_id=user.id, session_id=session.id, client=device.client)
        )
        return self._issue(session, user, secret, now)

    def check(self, access_token: str) -> Claims:
        """Return the claims of an access token of a living session; no query is needed to know."""
        return tokens.verify(access_token, self._find_key, self._rules, self._clock())

    def _new_session(self, user_id: UUID, secret: bytes, device: Device, now: datetime) -> Session:
        idle_timeout, lifetime = self._policy.lifetimes(remember=device.remember)
        return Session(
            user_id=user_id,
            id=ids.new_id(),
            generation=0,
            secret_digest=refresh_token.digest(secret),
            rotated_at=now,
            repeated_at=None,
            retry_digests="",
            created_at=now,
            auth_time=now,
            last_seen_at=now,
            idle_timeout=int(idle_timeout.total_seconds()),
            expires_at=now + lifetime,
            revoked_at=None,
            revoke_reason=None,
            ip=device.client.ip,
            user_agent=device.client.user_agent,
            device_name=device.name,
            amr=("pwd",),
            transport=device.transport,
            remember=device.remember,
        )

    def _issue(self, session: Session, user: User, secret: bytes, now: datetime) -> Tokens:
        access_token, expires_in = self._access_token(session, user, now)
        opaque = RefreshToken(session.user_id, session.id, session.generation, secret)
        return Tokens(
            access_token=access_token,
            expires_in=expires_in,
            refresh_token=refresh_token.mint(opaque, self._refresh_keys[0]),
            session_expires_in=int((policy.ends_at(session) - now).total_seconds()),
            expires_absolutely_in=int((session.expires_at - now).total_seconds()),
            session=session,
            user=user,
        )

    def _access_token(self, session: Session, user: User, now: datetime) -> tuple[str, int]:
        """Return (token, seconds it lives). What we say in our own name wins over the user's `claims`."""
        issued_at = int(now.timestamp())
        expires_at = int(policy.access_token_expiry(session, now, self._policy).timestamp())
        key = self._ring.active
        claims = {
            **{name: value for name, value in user.claims.items() if name not in tokens.REGISTERED},
            "iss": self._rules.issuer,
            "aud": self._rules.audience,
            "sub": ids.public("user", user.id),
            "sid": ids.public("sess", session.id),
            "iat": issued_at,
            "exp": expires_at,
            "jti": self._new_secret().hex(),
            "auth_time": int(session.auth_time.timestamp()),
            "amr": list(session.amr),
            "roles": list(user.roles),
        }
        text = tokens.sign(claims, kid=key.kid, algorithm=key.algorithm, private_key=key.private_key)
        return text, expires_at - issued_at

    def _find_key(self, kid: str) -> VerificationKey | None:
        key = self._ring.find(kid)
        return None if key is None else VerificationKey(key.kid, key.algorithm, key.public_key)
