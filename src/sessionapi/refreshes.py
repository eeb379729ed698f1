"""Refreshing a session (design 4.3). This is the heart of the product; read it from top to bottom.

What is to be done is decided by `policy.decide`, a pure function; here is only the I/O around it. Refreshes
that arrive together share one read, and one guarded UPDATE for all that rotate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sessionapi import audit, policy, refresh_token
from sessionapi.batches import Batches
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, InvalidRefreshToken, RefreshTokenReused, Unavailable
from sessionapi.issuer import Issuer, Tokens
from sessionapi.metrics import Metrics
from sessionapi.model import Client, Session, Transport, User
from sessionapi.policy import Attempt, Decision, Policy
from sessionapi.refresh_token import RefreshToken
from sessionapi.sessions import Sessions, require_living
from sessionapi.storage import Store, Tx
from sessionapi.storage.batched import Rotation, SessionKey
from sessionapi.windows import MemoryLimits

TRIES = 3
"""How often a write that met a changed row is decided again (design 4.3, step 4)."""

Found = tuple[Session, User] | None


@dataclass(frozen=True, slots=True)
class Presented:
    """A refresh as it came: the opaque text, how it travelled, and what the client says of it."""

    text: str = field(repr=False)
    transport: Transport
    client: Client
    idempotency_key: str | None = field(default=None, repr=False)
    active: bool = True


@dataclass(frozen=True, slots=True)
class _Request:
    """A refresh whose token is one of ours, at the moment `now` that all its decisions share."""

    token: RefreshToken
    attempt: Attempt
    presented: Presented
    now: datetime

    @property
    def key(self) -> SessionKey:
        """The key of the token's session."""
        return self.token.user_id, self.token.session_id


class Refreshes:
    """Refreshes of the sessions in one store."""

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        sessions: Sessions,
        the_policy: Policy,
        memory: MemoryLimits,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._sessions = sessions
        self._policy = the_policy
        self._memory = memory
        self._clock = clock
        self._metrics = metrics
        self._reads: Batches[SessionKey, Found] = Batches(self._read_all)
        self._rotations: Batches[Rotation, Session | None] = Batches(self._rotate_all)

    async def refresh(self, presented: Presented) -> Tokens:
        """Renew a session.

        Raises InvalidRefreshToken, SessionRevoked, SessionExpired, RateLimited, Overloaded, or, after the
        session has been ended durably, RefreshTokenReused.
        """
        request = self._understand(presented, self._clock())
        session, user, decision = await self._carry_through(request)
        self._metrics.refreshes.labels(decision.outcome).inc()
        if decision.outcome == "reuse":
            raise RefreshTokenReused
        moved = session.generation != request.token.generation
        return self._issuer.issue(session, user, request.now, request.token.secret, is_new=moved)

    async def look(self, text: str) -> None:
        """Raise why a cookie's refresh token renews nothing, and touch nothing: pages ask whom they are for.

        Raises InvalidRefreshToken, SessionRevoked or SessionExpired.
        """
        presented = Presented(text, "cookie", Client(None, None), None, active=False)
        request = self._understand(presented, self._clock())
        self._living(await self._reads.ask(request.key), request)

    async def settle(self) -> None:
        """Let the batches that are under way come to their end."""
        await self._reads.settle()
        await self._rotations.settle()

    async def _carry_through(self, request: _Request) -> tuple[Session, User, Decision]:
        """Decide from a shared read; a rotation joins a batch, and what is rare is a transaction of its own.

        A rotation whose row has changed between the two changes nothing, and is read and decided again.
        """
        self._store.refuse_if_away()
        for count in range(TRIES):
            session, user = self._living(await self._reads.ask(request.key), request)
            decision = policy.decide(session, request.attempt, request.now, self._policy)
            told = _to_audit(session, decision, request)
            if count == 0 and (told or decision.outcome in ("renewal", "rotation")):
                await self._memory.count("refresh", session.id.hex)
            if told or (decision.writes and decision.outcome != "rotation"):
                break
            if decision.outcome != "rotation":
                return session, user, decision
            rotated = await self._rotations.ask(self._rotation(request))
            if rotated is not None:
                return rotated, user, decision
        return await self._write(request)

    async def _read_all(self, keys: Sequence[SessionKey]) -> Sequence[Found]:
        async with self._store.read() as tx:
            found = await tx.sessions_and_users(keys)
        return [found.get(key) for key in keys]

    async def _rotate_all(self, asked: Sequence[Rotation]) -> Sequence[Session | None]:
        """Rotate the first of each session; the others are decided after it, from its outcome."""
        first = {rotation.key: rotation for rotation in reversed(asked)}
        rotated = await self._rotate_first(list(first.values()))
        return [rotated.get(each.key) if first[each.key] is each else None for each in asked]

    async def _rotate_first(self, rotations: Sequence[Rotation]) -> dict[SessionKey, Session]:
        """Rotate, one entry for each session; what a deadlock has undone is tried again."""
        for _ in range(TRIES - 1):
            try:
                return await self._rotate_once(rotations)
            except Unavailable as problem:
                if not problem.contended:
                    raise
        return await self._rotate_once(rotations)

    async def _rotate_once(self, rotations: Sequence[Rotation]) -> dict[SessionKey, Session]:
        async with self._store.begin() as tx:
            return await tx.rotate_all(rotations)

    def _rotation(self, request: _Request) -> Rotation:
        return Rotation(
            request.key,
            request.token.generation,
            request.token.secret_digest,
            request.now,
            waited=request.now - 3 * self._policy.refresh_grace,
            active=request.attempt.active,
            retry_digest=request.attempt.retry_digest,
            ip=request.presented.client.ip,
        )

    def _understand(self, presented: Presented, now: datetime) -> _Request:
        """Refuse a forged token before any query, by its HMAC."""
        token = self._issuer.read(presented.text)
        if token is None:
            raise InvalidRefreshToken
        key = presented.idempotency_key
        digest = refresh_token.digest(key.encode()).hex()[: policy.DIGEST_SIZE] if key else None
        return _Request(token, Attempt(token.generation, digest, presented.active), presented, now)

    async def _write(self, request: _Request) -> tuple[Session, User, Decision]:
        """Decide again in a transaction that writes, and carry it out in one guarded statement.

        If the row changed between the read and the statement, the statement finds no row: then it is read
        and decided again.
        """
        async with self._store.begin() as tx:
            for _ in range(TRIES):
                session, user = self._living(await tx.session_and_user(*request.key), request)
                decision = policy.decide(session, request.attempt, request.now, self._policy)
                written = await self._carry_out(tx, session, decision, request)
                if written is not None:
                    await self._tell(tx, session, decision, request)
                    return written, user, decision
        raise Conflict

    async def _carry_out(
        self, tx: Tx, session: Session, decision: Decision, request: _Request
    ) -> Session | None:
        """Write a decision; None if the row isn't any more what was decided upon."""
        if not decision.writes:
            return session
        if decision.outcome == "reuse":
            ended = await self._sessions.end(
                tx, session.user_id, [session.id], "refresh_reuse", request.now, request.presented.client
            )
            return session if ended else None
        if decision.outcome == "rotation":
            return await tx.rotate(
                request.token, request.attempt, request.now, self._policy, request.presented.client.ip
            )
        return await tx.note_refresh(session, request.attempt, decision, request.now)

    def _living(self, found: Found, request: _Request) -> tuple[Session, User]:
        """Steps 1 and 2 of design 4.3: return the token's session if it lives, with its user."""
        if found is None or found[0].secret_digest != request.token.secret_digest:
            raise InvalidRefreshToken
        if found[0].transport != request.presented.transport:
            raise InvalidRefreshToken
        require_living(found[0], request.now)
        return found

    async def _tell(self, tx: Tx, session: Session, decision: Decision, request: _Request) -> None:
        """Write into the audit log what of a refresh belongs there; the rest is only counted."""
        kind = _to_audit(session, decision, request)
        if kind is not None:
            where = request.presented.client
            await tx.record(
                audit.event(kind, request.now, user_id=session.user_id, session_id=session.id, client=where)
            )


def _to_audit(session: Session, decision: Decision, request: _Request) -> audit.Kind | None:
    """Return what of a refresh is worth an administrator's look: a lost rotation, or a second address."""
    if request.attempt.generation > session.generation:
        return "session.generation_ahead"
    if decision.outcome == "repeat" and request.presented.client.ip != session.ip:
        return "session.repeated_elsewhere"
    return None
