"""The life of a session but for its refreshes: start, check, list, end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sessionapi import audit, devices, ids, policy, refresh_token
from sessionapi.checks import Checks
from sessionapi.clock import Clock
from sessionapi.errors import (
    AuthenticationError,
    Conflict,
    InvalidToken,
    NotFound,
    SessionApiError,
    SessionExpired,
    SessionRevoked,
)
from sessionapi.issuer import Issuer, Tokens
from sessionapi.model import Client, RevokeReason, Session, Transport, User
from sessionapi.policy import Policy
from sessionapi.revocations import Revocations
from sessionapi.storage import Store, Tx
from sessionapi.tokens import Claims


@dataclass(frozen=True, slots=True)
class Device:
    """What a login says of the device that it happens on.

    `replaces` is the refresh token of its cookie, `token` its device token, if it has one.
    """

    client: Client
    remember: bool = True
    transport: Transport = "body"
    name: str | None = None
    replaces: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


class Sessions:
    """Sessions in one store."""

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        checks: Checks,
        the_policy: Policy,
        revocations: Revocations,
        clock: Clock,
        new_secret: Callable[[], bytes] = ids.new_secret,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._checks = checks
        self._policy = the_policy
        self.revocations = revocations
        self._clock = clock
        self._new_secret = new_secret

    async def start(self, tx: Tx, user: User, device: Device, now: datetime) -> Tokens:
        """Insert a new session of a user whose row is locked, and return its tokens.

        A login always starts a session of its own and never adopts one that was sent along (ASVS 7.2.4);
        the one whose cookie it replaces ends, and so does the least recently seen one over the limit.
        """
        await self._end_replaced(tx, device, now)
        over = await tx.least_recently_seen(user.id, now, keep=self._policy.sessions_per_user - 1)
        await self.end(tx, user.id, over, "session_limit", now, device.client)
        secret = self._new_secret()
        session = await tx.insert_session(self._new_session(user.id, secret, device, now))
        await tx.record(
            audit.event("session.started", now, user_id=user.id, session_id=session.id, client=device.client)
        )
        return self._issuer.issue(session, user, now, secret)

    async def log_out(self, text: str, client: Client) -> None:
        """End the session of a refresh token, of any generation; one that is unknown or ended is no error."""
        token = self._issuer.read(text)
        if token is None:
            return
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.holds_secret(token):
                await self.end(tx, token.user_id, [token.session_id], "logout", now, client)

    async def log_out_bearer(self, access_token: str, client: Client) -> None:
        """End the session of an access token, which may have died meanwhile."""
        user_id, session_id = owner(self._checks.genuine(access_token))
        async with self._store.begin() as tx:
            await self.end(tx, user_id, [session_id], "logout", self._clock(), client)

    async def devices(
        self, user_id: UUID, limit: int, before: UUID | None
    ) -> tuple[list[Session], UUID | None]:
        """Return living sessions, the newest first, and the id to go on `before` if there are more."""
        now = self._clock()
        async with self._store.read() as tx:
            found = await tx.living_sessions(user_id, now, limit + 1, before)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def revoke(self, user_id: UUID, session_id: UUID, reason: RevokeReason, client: Client) -> None:
        """End one living session of this user; NotFound for anything else, which tells nobody's secrets."""
        now = self._clock()
        async with self._store.begin() as tx:
            ended = await self.end(tx, user_id, [session_id], reason, now, client)
        if not ended:
            raise NotFound

    async def revoke_all(
        self, user_id: UUID, reason: RevokeReason, client: Client, keep: UUID | None = None
    ) -> int:
        """End all living sessions of a user, or all but one; return how many there were."""
        now = self._clock()
        async with self._store.begin() as tx:
            await tx.renew_credentials(user_id)
            return len(await self.end_all(tx, user_id, reason, now, client, keep))

    async def revoke_older(
        self, user_id: UUID, created_before: datetime, reason: RevokeReason, client: Client
    ) -> int:
        """End a user's living sessions that began before a moment; return how many there were.

        A login that is under way is younger, so the credentials stay as they are.
        """
        now = self._clock()
        async with self._store.begin() as tx:
            await tx.locked_user(user_id)
            older = await tx.living_ids(user_id, now, created_before)
            return len(await self.end(tx, user_id, older, reason, now, client))

    async def current(self, claims: Claims) -> tuple[Session, dict[str, Any]]:
        """Return the session of an access token and its data."""
        user_id, session_id = owner(claims)
        now = self._clock()
        async with self._store.read() as tx:
            session = await tx.session(user_id, session_id)
            data = await tx.session_data(user_id, session_id)
        return require_living(session, now), data

    async def update(
        self, claims: Claims, patch: dict[str, Any] | None, name: str | None
    ) -> tuple[Session, dict[str, Any]]:
        """Merge into the session's data (RFC 7396) and name its device; two patches at once lose nothing."""
        user_id, session_id = owner(claims)
        now = self._clock()
        async with self._store.begin() as tx:
            session = require_living(await tx.session(user_id, session_id, lock=True), now)
            if patch is not None:
                data = await tx.session_data(user_id, session_id)
                merged = policy.bounded(policy.merge(data, patch))
                if not policy.same_json(data, merged):
                    await tx.put_session_data(user_id, session_id, merged)
            if name is not None and name != session.device_name:
                await tx.name_device(user_id, session_id, name)
        return await self.current(claims)

    async def reauthenticated(self, tx: Tx, user: User, session_id: UUID, now: datetime) -> Tokens:
        """Move `auth_time` of a living session whose user has just shown the password again."""
        session = await tx.move_auth_time(user.id, session_id, now)
        if session is None:
            raise await self._why_dead(tx, user.id, session_id, now)
        return self._issuer.issue(session, user, now, None)

    async def renew_secret(self, tx: Tx, user: User, session_id: UUID, now: datetime) -> Tokens:
        """Give a living session a new secret, so that every refresh token made before is dead."""
        secret = self._new_secret()
        session = await tx.replace_secret(user.id, session_id, refresh_token.digest(secret), now)
        if session is None:
            raise await self._why_dead(tx, user.id, session_id, now)
        return self._issuer.issue(session, user, now, secret)

    async def end_all(
        self,
        tx: Tx,
        user_id: UUID,
        reason: RevokeReason,
        now: datetime,
        client: Client,
        keep: UUID | None = None,
    ) -> Sequence[UUID]:
        """End the living sessions of a user whose row this transaction has updated first (design 4.4)."""
        living = [each for each in await tx.living_ids(user_id, now) if each != keep]
        return await self.end(tx, user_id, living, reason, now, client)

    async def end(
        self,
        tx: Tx,
        user_id: UUID,
        session_ids: Sequence[UUID],
        reason: RevokeReason,
        now: datetime,
        client: Client,
    ) -> Sequence[UUID]:
        """End those of the sessions that are alive, with their data; the audit log has each of them.

        Once committed, their access tokens are refused in this process.
        """
        ended = await tx.revoke(user_id, session_ids, reason, now) if session_ids else []
        told: dict[str, Any] = {"user_id": user_id, "client": client, "details": {"reason": reason}}
        await tx.record(*(audit.event("session.ended", now, session_id=each, **told) for each in ended))
        tx.after_commit(lambda: self.revocations.add(ended, reason))
        return ended

    async def _why_dead(self, tx: Tx, user_id: UUID, session_id: UUID, now: datetime) -> SessionApiError:
        try:
            require_living(await tx.session(user_id, session_id), now)
        except AuthenticationError as ended:
            return ended
        return Conflict()

    async def _end_replaced(self, tx: Tx, device: Device, now: datetime) -> None:
        token = self._issuer.read(device.replaces) if device.replaces else None
        if token is not None and await tx.holds_secret(token):
            await self.end(tx, token.user_id, [token.session_id], "replaced", now, device.client)

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
            device_name=device.name or devices.name(device.client.user_agent),
            amr=("pwd",),
            transport=device.transport,
            remember=device.remember,
        )


def owner(claims: Claims) -> tuple[UUID, UUID]:
    """Return (user id, session id) of a verified token: we made both."""
    user_id, session_id = ids.parse("user", claims.user_id), ids.parse("sess", claims.session_id)
    if user_id is None or session_id is None:
        raise InvalidToken
    return user_id, session_id


def require_living(session: Session | None, now: datetime) -> Session:
    """Return a session that lives; SessionRevoked or SessionExpired, with the reason, for one that ended."""
    if session is None:
        raise SessionRevoked("revoked_by_admin")  # purged: ended so long ago that its row is gone
    end = policy.ended(session, now)
    if end is not None:
        raise (SessionRevoked if end.how == "revoked" else SessionExpired)(end.reason)
    return session
