"""Session refresh (design 4.3). This is the heart of the product; read it from top to bottom.

`policy.decide`, a pure function, makes the decision; this module does the I/O around it. Refreshes that
arrive together share one read, and those that rotate share one guarded UPDATE (`SessionLoader`).
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, InvalidRefreshToken, RefreshTokenReused
from sessionapi.metrics import Metrics
from sessionapi.models import DIGEST_SIZE, Attempt, Client, Decision, Session, Transport, User
from sessionapi.sessions import policy
from sessionapi.sessions.lifecycle import Sessions
from sessionapi.sessions.loader import SessionLoader
from sessionapi.sessions.policy import Policy, ensure_active
from sessionapi.storage import Store, Transaction
from sessionapi.storage.session_batches import Rotation
from sessionapi.throttling.rate_limiter import RateLimiter
from sessionapi.tokens.issuer import Issuer, Tokens
from sessionapi.tokens.refresh_token import RefreshToken

MAX_ATTEMPTS = 3
"""Number of attempts when the row changes between the decision and the write (design 4.3, step 4)."""


@dataclass(slots=True)
class RefreshRequest:
    """A refresh as received: the opaque token, its transport and what is known about the client."""

    text: str = field(repr=False)
    transport: Transport
    client: Client
    idempotency_key: str | None = field(default=None, repr=False)
    active: bool = True


@dataclass(slots=True)
class _Refresh:
    """A request with a genuine token. All decisions about it use the same time `now`."""

    request: RefreshRequest
    token: RefreshToken
    attempt: Attempt
    now: datetime


@dataclass(slots=True)
class Refreshes:
    """Refreshes the sessions in one store."""

    store: Store
    loader: SessionLoader
    issuer: Issuer
    sessions: Sessions
    policy: Policy
    limiter: RateLimiter
    clock: Clock
    metrics: Metrics

    async def refresh(self, request: RefreshRequest) -> Tokens:
        """Renew a session.

        Raises InvalidRefreshToken, SessionRevoked, SessionExpired, RateLimited, Overloaded or, after the
        session has been ended durably, RefreshTokenReused.
        """
        refresh = self._authenticate(request)
        self.store.ensure_closed()
        for number in range(MAX_ATTEMPTS):
            session, user = _verify(await self.loader.session_and_user(refresh.token.key), refresh)
            decision = policy.decide(session, refresh.attempt, refresh.now, self.policy)
            suspicion = _suspicion(session, decision, refresh)
            if number == 0:
                self._limit(session, decision, suspicion)
            if suspicion or (decision.writes and decision.outcome != "rotation"):
                break
            if decision.outcome == "rotation":
                auth_time = await self.loader.rotate(self._rotation(refresh))
                if auth_time is None:
                    continue
                session = _after_rotation(session, refresh, auth_time)
            return await self._finish(session, user, decision, refresh)
        return await self._refresh_alone(refresh)

    async def validate(self, text: str) -> None:
        """Validate a refresh token without using it.

        The pages call this to choose between their content and the sign-in page. Raises InvalidRefreshToken,
        SessionRevoked or SessionExpired.
        """
        refresh = self._authenticate(RefreshRequest(text, "cookie", Client(), active=False))
        async with self.store.read() as tx:
            _verify(await tx.sessions.get_with_user(*refresh.token.key), refresh)

    def _authenticate(self, request: RefreshRequest) -> _Refresh:
        """Parse the token. A forged one is refused by its HMAC, before any query."""
        now = self.clock()
        token = self.issuer.read(request.text)
        if token is None:
            raise InvalidRefreshToken
        key = request.idempotency_key
        digest = ids.digest(key.encode()).hex()[:DIGEST_SIZE] if key else None
        return _Refresh(request, token, Attempt(token.generation, digest, request.active), now)

    def _limit(self, session: Session, decision: Decision, suspicion: audit.Kind | None) -> None:
        """Count a refresh towards the limits of its session and, if it writes an audit event, of its user.

        A repeat without an event is not counted, because a client may repeat a refresh as often as messages
        are lost. Reuse is not counted, because it always ends the session.
        """
        if suspicion or decision.outcome in ("renewal", "rotation"):
            self.limiter.count("refresh", session.id.hex)
        if suspicion:
            self.limiter.count("write_user", ids.public("user", session.user_id))

    def _rotation(self, refresh: _Refresh) -> Rotation:
        return Rotation(
            refresh.token.key,
            refresh.token.generation,
            refresh.token.secret_digest,
            refresh.now,
            waited=refresh.now - 3 * self.policy.refresh_grace,
            active=refresh.attempt.active,
            retry_digest=refresh.attempt.retry_digest,
            ip=refresh.request.client.ip,
        )

    async def _finish(self, session: Session, user: User, decision: Decision, refresh: _Refresh) -> Tokens:
        """Count the outcome and return the tokens. Raise RefreshTokenReused if the outcome is reuse.

        The refreshes of a batch resume in the same iteration of the event loop. Each yields to the next one
        before and after signing, so no other work comes between the signatures (docs/refresh.md).
        """
        self.metrics.count_refresh(decision.outcome)
        if decision.outcome == "reuse":
            raise RefreshTokenReused
        await asyncio.sleep(0)
        tokens = self.issuer.renew(session, user, refresh.now, refresh.token)
        await asyncio.sleep(0)
        return tokens

    async def _refresh_alone(self, refresh: _Refresh) -> Tokens:
        """Decide again and write, in a transaction that has locked the user's row and then the session's.

        This is for the rare decisions, which need a durable commit or an audit event, and for a row that has
        changed too often. No other refresh can change the row, so the decision is certain to be written.
        """

        async def work(tx: Transaction) -> tuple[Session, User, Decision]:
            await tx.users.lock({refresh.token.user_id})
            session, user = _verify(await tx.sessions.get_with_user(*refresh.token.key, lock=True), refresh)
            decision = policy.decide(session, refresh.attempt, refresh.now, self.policy)
            written = await self._write(tx, session, decision, refresh)
            await _audit(tx, session, decision, refresh)
            return written, user, decision

        return await self._finish(*await self.store.run(work), refresh)

    async def _write(
        self, tx: Transaction, session: Session, decision: Decision, refresh: _Refresh
    ) -> Session:
        """Write a decision, and return the session after it."""
        if not decision.writes:
            return session
        if decision.outcome == "reuse":
            user_id, session_id = refresh.token.key
            client = refresh.request.client
            if await self.sessions.end(tx, user_id, [session_id], "refresh_reuse", refresh.now, client):
                return session
        elif decision.outcome == "rotation":
            auth_times = await tx.session_batches.rotate([self._rotation(refresh)])
            if auth_time := auth_times.get(refresh.token.key):
                return _after_rotation(session, refresh, auth_time)
        elif noted := await tx.sessions.note_refresh(session, refresh.attempt, decision, refresh.now):
            return noted
        raise Conflict


def _verify(records: tuple[Session, User] | None, refresh: _Refresh) -> tuple[Session, User]:
    """Return the token's session, if it is active, and its user (steps 1 and 2 of design 4.3)."""
    if records is None:
        raise InvalidRefreshToken
    session, user = records
    same_secret = session.secret_digest == refresh.token.secret_digest
    if not same_secret or session.transport != refresh.request.transport:
        raise InvalidRefreshToken
    return ensure_active(session, refresh.now), user


def _after_rotation(session: Session, refresh: _Refresh, auth_time: datetime) -> Session:
    return policy.rotated(session, refresh.attempt, refresh.now, refresh.request.client.ip, auth_time)


def _suspicion(session: Session, decision: Decision, refresh: _Refresh) -> audit.Kind | None:
    """Return the event of a suspicious refresh: its rotation was lost, or it was repeated from another IP."""
    if refresh.attempt.generation > session.generation:
        return "session.generation_ahead"
    if decision.outcome == "repeat" and refresh.request.client.ip != session.ip:
        return "session.repeated_elsewhere"
    return None


async def _audit(tx: Transaction, session: Session, decision: Decision, refresh: _Refresh) -> None:
    """Record a suspicious refresh in the audit log; ordinary ones are only counted."""
    kind, client = _suspicion(session, decision, refresh), refresh.request.client
    if kind is not None:
        event = audit.event(kind, refresh.now, user_id=session.user_id, session_id=session.id, client=client)
        await tx.events.add(event)
