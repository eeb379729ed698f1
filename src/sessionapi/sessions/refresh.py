"""Refreshing a session (design 4.3). This is the heart of the product; read it from top to bottom.

What is to be done is decided by `policy.decide`, a pure function; here is only the I/O around it. Refreshes
that arrive together share one read, and one guarded UPDATE for all that rotate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, InvalidRefreshToken, RefreshTokenReused
from sessionapi.metrics import Metrics
from sessionapi.models import DIGEST_SIZE, Attempt, Client, Decision, Session, Transport, User
from sessionapi.sessions import policy
from sessionapi.sessions.batching import Batcher
from sessionapi.sessions.lifecycle import Sessions
from sessionapi.sessions.policy import Policy, ensure_active
from sessionapi.storage import Store, Transaction
from sessionapi.storage.session_batches import Rotation, SessionKey
from sessionapi.throttling.rate_limiter import RateLimiter
from sessionapi.tokens import refresh_token
from sessionapi.tokens.issuer import Issuer, Tokens
from sessionapi.tokens.refresh_token import RefreshToken

TRIES = 3
"""How often a write that met a changed row is decided again (design 4.3, step 4)."""

Found = tuple[Session, User] | None


@dataclass(frozen=True, slots=True)
class RefreshRequest:
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
    presented: RefreshRequest
    now: datetime
    is_again: bool = False
    """It met a changed row, and is no further try of its session."""

    @property
    def key(self) -> SessionKey:
        """The key of the token's session."""
        return self.token.user_id, self.token.session_id


@dataclass(frozen=True, slots=True)
class _Step:
    """What a refresh has come to: its tokens, or what is to be written before there are any.

    A rotation is written with others; what is rare by a transaction of its own.
    """

    request: _Request
    session: Session
    user: User
    decision: Decision
    tokens: Tokens | None = None
    is_rare: bool = False


class Refreshes:
    """Refreshes of the sessions in one store."""

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        sessions: Sessions,
        the_policy: Policy,
        memory: RateLimiter,
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
        self._reads: Batcher[_Request, _Step] = Batcher(self._read_all)
        self._rotations: Batcher[_Step, _Step | None] = Batcher(self._rotate_all)

    async def refresh(self, presented: RefreshRequest) -> Tokens:
        """Renew a session.

        Raises InvalidRefreshToken, SessionRevoked, SessionExpired, RateLimited, Overloaded, or, after the
        session has been ended durably, RefreshTokenReused.
        """
        step = await self._carry_through(self._understand(presented, self._clock()))
        self._metrics.count_refresh(step.decision.outcome)
        if step.tokens is None:
            raise RefreshTokenReused
        return step.tokens

    async def look(self, text: str) -> None:
        """Raise why a cookie's refresh token renews nothing, and touch nothing: pages ask whom they are for.

        Raises InvalidRefreshToken, SessionRevoked or SessionExpired.
        """
        presented = RefreshRequest(text, "cookie", Client(None, None), None, active=False)
        request = self._understand(presented, self._clock())
        async with self._store.read() as tx:
            found = await tx.session_and_user(*request.key)
        self._living(found, request)

    async def settle(self) -> None:
        """Let the batches that are under way come to their end."""
        await self._reads.settle()
        await self._rotations.settle()

    async def _carry_through(self, request: _Request) -> _Step:
        """Decide from a shared read; a rotation joins a batch, and what is rare is a transaction of its own.

        A rotation whose row has changed between the two changes nothing, and is read and decided again.
        """
        self._store.ensure_closed()
        for _ in range(TRIES):
            step = await self._reads.ask(request)
            if step.tokens is not None:
                return step
            if step.is_rare:
                break
            rotated = await self._rotations.ask(step)
            if rotated is not None:
                return rotated
            request = replace(request, is_again=True)
        return await self._write(request)

    async def _read_all(self, asked: Sequence[_Request]) -> Sequence[_Step | Exception]:
        """Read, decide and sign for all: one after the other, their signatures take half the time."""
        async with self._store.read() as tx:
            found = await tx.sessions_and_users([request.key for request in asked])
        return [self._answer(request, each) for request, each in zip(asked, found, strict=True)]

    def _answer(self, request: _Request, found: Found) -> _Step | Exception:
        """Return what a refresh has come to, or why it is refused: a defect too is that of this one alone."""
        try:
            return self._decide(request, found)
        except Exception as problem:
            return problem

    def _decide(self, request: _Request, found: Found) -> _Step:
        """Return what a refresh has come to, with its tokens if nothing is to be written."""
        session, user = self._living(found, request)
        decision = policy.decide(session, request.attempt, request.now, self._policy)
        told = _to_audit(session, decision, request)
        if not request.is_again and (told or decision.outcome in ("renewal", "rotation")):
            self._memory.count("refresh", session.id.hex)
            if told:
                self._memory.count("write_user", ids.public("user", user.id))
        if told or decision.writes:
            is_rare = told is not None or decision.outcome != "rotation"
            return _Step(request, session, user, decision, is_rare=is_rare)
        return self._done(request, session, user, decision)

    def _done(self, request: _Request, session: Session, user: User, decision: Decision) -> _Step:
        tokens = self._issuer.renew(session, user, request.now, request.token)
        return _Step(request, session, user, decision, tokens)

    async def _rotate_all(self, asked: Sequence[_Step]) -> Sequence[_Step | None]:
        """Rotate the first of each session; the others are decided after it, from its outcome."""
        first = {step.request.key: step for step in reversed(asked)}
        rotated = await self._rotate_first([self._rotation(step.request) for step in first.values()])
        done = {key: self._rotated(first[key], auth_time) for key, auth_time in rotated.items()}
        return [done.get(step.request.key) if first[step.request.key] is step else None for step in asked]

    def _rotated(self, step: _Step, auth_time: datetime) -> _Step:
        session = _after_rotation(step.session, step.request, auth_time)
        return self._done(step.request, session, step.user, step.decision)

    async def _rotate_first(self, rotations: Sequence[Rotation]) -> dict[SessionKey, datetime]:
        """Rotate, one entry for each session.

        The commit does not wait for the disk, because a lost rotation logs no user out (design 4.3).
        """

        async def work(tx: Transaction) -> dict[SessionKey, datetime]:
            await tx.commit_asynchronously()
            return await tx.rotate_all(rotations)

        return await self._store.run(work)

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

    def _understand(self, presented: RefreshRequest, now: datetime) -> _Request:
        """Refuse a forged token before any query, by its HMAC."""
        token = self._issuer.read(presented.text)
        if token is None:
            raise InvalidRefreshToken
        key = presented.idempotency_key
        digest = refresh_token.digest(key.encode()).hex()[:DIGEST_SIZE] if key else None
        return _Request(token, Attempt(token.generation, digest, presented.active), presented, now)

    async def _write(self, request: _Request) -> _Step:
        """Decide again in a transaction that writes, and carry it out."""
        return await self._store.run(lambda tx: self._decide_and_write(tx, request))

    async def _decide_and_write(self, tx: Transaction, request: _Request) -> _Step:
        """Decide and carry it out in one guarded statement, under the lock of the user's row.

        If the session changed between the read and the statement, the statement finds no row: then it is read
        and decided again.
        """
        await tx.lock_users({request.token.user_id})
        for _ in range(TRIES):
            session, user = self._living(await tx.session_and_user(*request.key), request)
            decision = policy.decide(session, request.attempt, request.now, self._policy)
            written = await self._carry_out(tx, session, decision, request)
            if written is None:
                continue
            await self._tell(tx, session, decision, request)
            if decision.outcome == "reuse":
                return _Step(request, written, user, decision)
            return self._done(request, written, user, decision)
        raise Conflict

    async def _carry_out(
        self, tx: Transaction, session: Session, decision: Decision, request: _Request
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
            rotated = await tx.rotate_all([self._rotation(request)])
            return _after_rotation(session, request, rotated[request.key]) if rotated else None
        return await tx.note_refresh(session, request.attempt, decision, request.now)

    def _living(self, found: Found, request: _Request) -> tuple[Session, User]:
        """Steps 1 and 2 of design 4.3: return the token's session if it lives, with its user."""
        if found is None or found[0].secret_digest != request.token.secret_digest:
            raise InvalidRefreshToken
        if found[0].transport != request.presented.transport:
            raise InvalidRefreshToken
        ensure_active(found[0], request.now)
        return found

    async def _tell(self, tx: Transaction, session: Session, decision: Decision, request: _Request) -> None:
        """Write into the audit log what of a refresh belongs there; the rest is only counted."""
        kind = _to_audit(session, decision, request)
        if kind is not None:
            where = request.presented.client
            await tx.record(
                audit.event(kind, request.now, user_id=session.user_id, session_id=session.id, client=where)
            )


def _after_rotation(session: Session, request: _Request, auth_time: datetime) -> Session:
    return policy.rotated(session, request.attempt, request.now, request.presented.client.ip, auth_time)


def _to_audit(session: Session, decision: Decision, request: _Request) -> audit.Kind | None:
    """Return what of a refresh is worth an administrator's look: a lost rotation, or a second address."""
    if request.attempt.generation > session.generation:
        return "session.generation_ahead"
    if decision.outcome == "repeat" and request.presented.client.ip != session.ip:
        return "session.repeated_elsewhere"
    return None
