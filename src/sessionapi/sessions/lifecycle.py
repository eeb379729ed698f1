"""Session lifecycle, except for refreshes: start, check, list and end sessions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import AuthenticationError, Conflict, NotFound, SessionApiError
from sessionapi.models import Client, Page, RevokeReason, Session, Transport, User
from sessionapi.sessions import json_data, policy, user_agents
from sessionapi.sessions.actors import Actor, Actors, Caller, owner
from sessionapi.sessions.policy import Policy, ensure_active
from sessionapi.sessions.revocations import Revocations
from sessionapi.storage import Store, Transaction
from sessionapi.tokens.access_token import Claims
from sessionapi.tokens.issuer import Issuer, Tokens
from sessionapi.tokens.refresh_token import RefreshToken


@dataclass(frozen=True, slots=True)
class Device:
    """Device details of a login, as sent by the client.

    `replaces` is the refresh token from its cookie and `token` its device token, if it sent any.
    """

    client: Client
    remember: bool = True
    transport: Transport = "body"
    name: str | None = None
    replaces: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Sessions:
    """The sessions in one store."""

    store: Store
    issuer: Issuer
    actors: Actors
    policy: Policy
    revocations: Revocations
    clock: Clock

    async def start(self, tx: Transaction, user: User, device: Device, now: datetime) -> Tokens:
        """Insert a new session for a user whose row is locked, and return its tokens.

        A login always starts a new session and never adopts one that was sent along (ASVS 7.2.4). The session
        whose cookie it replaces is ended, and so are the least recently seen ones beyond the limit. The row
        of the user whose session is replaced must be locked too; see `replaced_users`.
        """
        replaced = await self._replaced(tx, device)
        over = await tx.sessions.least_recently_seen(
            user.id, now, self.policy.sessions_per_user - 1, replaced[1] if replaced else None
        )
        await self._lock_in_order(
            tx, {*([replaced] if replaced else []), *((user.id, each) for each in over)}
        )
        if replaced:
            await self.end(tx, replaced[0], [replaced[1]], "replaced", now, device.client)
        await self.end(tx, user.id, over, "session_limit", now, device.client)
        secret = ids.new_secret()
        session = await tx.sessions.insert(self._new_session(user.id, secret, device, now))
        await tx.events.add(
            audit.event("session.started", now, user_id=user.id, session_id=session.id, client=device.client)
        )
        return self.issuer.issue(session, user, now, secret)

    def replaced_users(self, device: Device) -> set[UUID]:
        """Return the user whose session a login replaces. Their row must be locked before `start`."""
        token = self.issuer.read(device.replaces) if device.replaces else None
        return {token.user_id} if token else set()

    async def log_out(self, shown: Sequence[str], claims: Claims | None, client: Client) -> bool:
        """End the session of every valid credential: refresh tokens of any generation, an access token.

        Return whether any credential was valid. It is not an error if its session has already ended.
        """
        tokens = [token for token in map(self.issuer.read, shown) if token is not None]
        keys = {owner(claims)} if claims else set()
        if not tokens and not keys:
            return False
        async with self.store.read() as tx:  # needs no write lock, because an ended session stays ended
            good = await self._good_keys(tx, keys, tokens)
            found = [await tx.sessions.get(*key) for key in sorted(good)]
        now = self.clock()
        if not any(session and policy.ended(session, now) is None for session in found):
            return bool(good)

        async def work(tx: Transaction) -> bool:
            await tx.users.lock({user_id for user_id, _ in keys} | {token.user_id for token in tokens})
            now = self.clock()
            good = await self._good_keys(tx, keys, tokens)
            for user_id, session_id in sorted(good):
                await self.end(tx, user_id, [session_id], "logout", now, client)
            return bool(good)

        return await self.store.run(work)

    async def _good_keys(
        self, tx: Transaction, keys: set[tuple[UUID, UUID]], tokens: Sequence[RefreshToken]
    ) -> set[tuple[UUID, UUID]]:
        """Return the keys, plus those of the refresh tokens whose secret matches their session."""
        return keys | {token.key for token in tokens if await _has_secret(tx, token)}

    async def list_active(self, user_id: UUID, limit: int, before: UUID | None) -> Page[Session, UUID]:
        """Return one page of a user's active sessions, newest first, all older than the id `before`."""
        now = self.clock()
        async with self.store.read() as tx:
            rows = await tx.sessions.active(user_id, now, limit + 1, before)
        return Page.of(rows, limit, lambda session: session.id)

    async def revoke(self, user_id: UUID, session_id: UUID, reason: RevokeReason, caller: Caller) -> None:
        """End one active session of this user; NotFound for any other id, whether or not it exists."""

        async def work(tx: Transaction, user: User, now: datetime) -> Sequence[UUID]:
            return await self.end(tx, user.id, [session_id], reason, now, caller.client)

        if not await self.actors.run(caller, user_id, work):
            raise NotFound

    async def revoke_all(
        self, user_id: UUID, reason: RevokeReason, caller: Caller, keep: UUID | None = None
    ) -> int:
        """End all active sessions of a user, or all except `keep`; return how many there were."""

        async def work(tx: Transaction, user: User, now: datetime) -> Sequence[UUID]:
            await tx.users.bump_credential_version(user.id)
            return await self.end_all(tx, user.id, reason, now, caller.client, keep)

        return len(await self.actors.run(caller, user_id, work))

    async def revoke_older(
        self, user_id: UUID, created_before: datetime, reason: RevokeReason, caller: Caller
    ) -> int:
        """End a user's active sessions that began before a given time; return how many there were.

        The credential version is not changed, because a login that is under way starts a newer session.
        """

        async def work(tx: Transaction, user: User, now: datetime) -> Sequence[UUID]:
            older = await tx.sessions.active_ids(user.id, now, created_before)
            return await self.end(tx, user.id, older, reason, now, caller.client)

        return len(await self.actors.run(caller, user_id, work))

    async def current(self, user_id: UUID, session_id: UUID) -> tuple[Session, dict[str, Any]]:
        """Return an active session and its data."""
        now = self.clock()
        async with self.store.read() as tx:
            session = await tx.sessions.get(user_id, session_id)
            data = await tx.sessions.data(user_id, session_id)
        return ensure_active(session, now), data

    async def update(
        self, actor: Actor, patch: dict[str, Any] | None, name: str | None
    ) -> tuple[Session, dict[str, Any]]:
        """Merge a patch into the data of the caller's session (RFC 7396), and name its device.

        Concurrent patches are applied one after the other, so none is lost.
        """
        key = (actor.user_id, actor.session_id)

        async def work(tx: Transaction, _user: User, _now: datetime) -> None:
            if patch is not None:
                data = await tx.sessions.data(*key)
                merged = json_data.bounded(json_data.merge(data, patch))
                if not json_data.same_json(data, merged):
                    await tx.sessions.put_data(*key, merged)
            if name is not None:
                await tx.sessions.name_device(*key, name)

        await self.actors.run(actor, actor.user_id, work)
        return await self.current(*key)

    async def renew_secret(self, tx: Transaction, user: User, session_id: UUID, now: datetime) -> Tokens:
        """Give an active session a new secret and `auth_time`, and return its tokens.

        An earlier refresh token can neither renew the session nor gain the new `auth_time` (ASVS 7.2.4).
        """
        secret = ids.new_secret()
        session = await tx.sessions.replace_secret(user.id, session_id, ids.digest(secret), now)
        if session is None:
            raise await self._why_ended(tx, user.id, session_id, now)
        return self.issuer.issue(session, user, now, secret)

    async def end_all(
        self,
        tx: Transaction,
        user_id: UUID,
        reason: RevokeReason,
        now: datetime,
        client: Client,
        keep: UUID | None = None,
    ) -> Sequence[UUID]:
        """End the active sessions of a user whose row this transaction has locked (design 4.4)."""
        active = [each for each in await tx.sessions.active_ids(user_id, now) if each != keep]
        return await self.end(tx, user_id, active, reason, now, client)

    async def end(
        self,
        tx: Transaction,
        user_id: UUID,
        session_ids: Sequence[UUID],
        reason: RevokeReason,
        now: datetime,
        client: Client,
    ) -> Sequence[UUID]:
        """End those of the given sessions that are active, delete their data, and audit each of them.

        The transaction must have locked the row of their user, because `Actors` relies on it. After the
        commit, this process refuses their access tokens.
        """
        ended = await tx.sessions.revoke(user_id, session_ids, reason, now) if session_ids else []
        fields: dict[str, Any] = {"user_id": user_id, "client": client, "details": {"reason": reason}}
        await tx.events.add(*(audit.event("session.ended", now, session_id=each, **fields) for each in ended))
        tx.on_commit(lambda: self.revocations.add(ended, reason))
        return ended

    async def _why_ended(
        self, tx: Transaction, user_id: UUID, session_id: UUID, now: datetime
    ) -> SessionApiError:
        try:
            ensure_active(await tx.sessions.get(user_id, session_id), now)
        except AuthenticationError as ended:
            return ended
        return Conflict()

    async def _lock_in_order(self, tx: Transaction, keys: Collection[tuple[UUID, UUID]]) -> None:
        """Lock sessions in the order of their keys. A single one is locked by its UPDATE."""
        for user_id, session_id in sorted(keys) if len(keys) > 1 else ():
            await tx.sessions.get(user_id, session_id, lock=True)

    async def _replaced(self, tx: Transaction, device: Device) -> tuple[UUID, UUID] | None:
        """Return the key of the session that a login replaces, if its cookie is valid."""
        token = self.issuer.read(device.replaces) if device.replaces else None
        good = token is not None and await _has_secret(tx, token)
        return token.key if token is not None and good else None

    def _new_session(self, user_id: UUID, secret: bytes, device: Device, now: datetime) -> Session:
        idle_timeout, lifetime = self.policy.lifetimes(remember=device.remember)
        return Session(
            user_id=user_id,
            id=ids.new_id(),
            generation=0,
            secret_digest=ids.digest(secret),
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
            device_name=device.name or user_agents.name(device.client.user_agent),
            amr=("pwd",),
            transport=device.transport,
            remember=device.remember,
        )


async def _has_secret(tx: Transaction, token: RefreshToken) -> bool:
    return await tx.sessions.secret_matches(token.user_id, token.session_id, token.secret_digest)
