"""Session refresh (design 4.3). This is the heart of the product; read it from top to bottom.

`policy.decide`, a pure function, makes the decision; this module does the I/O around it. Refreshes that
arrive together share one read, and those that rotate share one guarded UPDATE.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import Conflict, InvalidRefreshToken, RefreshTokenReused
from sessionapi.metrics import Metrics
from sessionapi.models import DIGEST_SIZE, Attempt, Client, Decision, Session, SessionKey, Transport, User
from sessionapi.sessions import policy
from sessionapi.sessions.batching import Batcher
from sessionapi.sessions.lifecycle import Sessions
from sessionapi.sessions.policy import Policy, ensure_active
from sessionapi.storage import Store, Transaction
from sessionapi.storage.session_batches import Rotation
from sessionapi.throttling.rate_limiter import RateLimiter
from sessionapi.tokens import refresh_token
from sessionapi.tokens.issuer import Issuer, Tokens
from sessionapi.tokens.refresh_token import RefreshToken

TRIES = 3
"""Number of attempts when the row changes between the decision and the write (design 4.3, step 4)."""

Found = tuple[Session, User] | None


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """A refresh as received: the opaque token, its transport and what is known about the client."""

    text: str = field(repr=False)
    transport: Transport
    client: Client
    idempotency_key: str | None = field(default=None, repr=False)
    active: bool = True


@dataclass(slots=True)
class _Request:
    """A refresh with a genuine token. All decisions about it use the same time `now`."""

    token: RefreshToken
    attempt: Attempt
    presented: RefreshRequest
    now: datetime
    is_again: bool = False
    """True if this refresh is decided again because the row has changed. It does not count again towards the
    session's limit."""

    @property
    def key(self) -> SessionKey:
        """Key of the token's session."""
        return self.token.user_id, self.token.session_id


@dataclass(slots=True)
class _Step:
    """Progress of a refresh: either its tokens, or a decision that has to be written first.

    Rotations are written in a batch; rare decisions get a separate transaction.
    """

    request: _Request
    session: Session
    user: User
    decision: Decision
    tokens: Tokens | None = None
    is_rare: bool = False


class Refreshes:
    """Refreshes the sessions in one store."""

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

        Raises InvalidRefreshToken, SessionRevoked, SessionExpired, RateLimited, Overloaded or, after the
        session has been ended durably, RefreshTokenReused.
        """
        step = await self._carry_through(self._understand(presented, self._clock()))
        self._metrics.count_refresh(step.decision.outcome)
        if step.tokens is None:
            raise RefreshTokenReused
        return step.tokens

    async def look(self, text: str) -> None:
        """Validate a refresh token without using it.

        The pages call this to choose between their content and the sign-in page. Raises InvalidRefreshToken,
        SessionRevoked or SessionExpired.
        """
        presented = RefreshRequest(text, "cookie", Client(None, None), None, active=False)
        request = self._understand(presented, self._clock())
        async with self._store.read() as tx:
            found = await tx.sessions.get_with_user(*request.key)
        self._living(found, request)

    async def settle(self) -> None:
        """Wait for the batches that are under way."""
        await self._reads.settle()
        await self._rotations.settle()

    async def _carry_through(self, request: _Request) -> _Step:
        """Decide after a shared read. Rotations join a batch, and rare decisions get a separate transaction.

        If the row changes between the read and the rotation, nothing is written, and the refresh is read and
        decided again.
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
        """Read, decide and sign a whole batch.

        A signature takes two thirds of the time if the tokens are signed directly one after the other
        (`docs/refresh.md`).
        """
        async with self._store.read() as tx:
            found = await tx.session_batches.read([request.key for request in asked])
        return [self._answer(request, each) for request, each in zip(asked, found, strict=True)]

    def _answer(self, request: _Request, found: Found) -> _Step | Exception:
        """Return the next step of a refresh, or its error, which affects no other refresh of the batch."""
        try:
            return self._decide(request, found)
        except Exception as problem:
            return problem

    def _decide(self, request: _Request, found: Found) -> _Step:
        """Return the next step of a refresh, with its tokens if nothing has to be written."""
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
        """Rotate the first refresh of each session; the others are decided again, based on its outcome."""
        first = {step.request.key: step for step in reversed(asked)}
        rotated = await self._rotate_first([self._rotation(step.request) for step in first.values()])
        done = {key: self._rotated(first[key], auth_time) for key, auth_time in rotated.items()}
        return [done.get(step.request.key) if first[step.request.key] is step else None for step in asked]

    def _rotated(self, step: _Step, auth_time: datetime) -> _Step:
        session = _after_rotation(step.session, step.request, auth_time)
        return self._done(step.request, session, step.user, step.decision)

    async def _rotate_first(self, rotations: Sequence[Rotation]) -> dict[SessionKey, datetime]:
        """Rotate one entry per session.

        The commit does not wait for the disk, because losing a rotation logs no user out (design 4.3).
        """

        async def work(tx: Transaction) -> dict[SessionKey, datetime]:
            await tx.commit_asynchronously()
            return await tx.session_batches.rotate(rotations)

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
        """Parse the token. A forged one is refused by its HMAC, before any query."""
        token = self._issuer.read(presented.text)
        if token is None:
            raise InvalidRefreshToken
        key = presented.idempotency_key
        digest = refresh_token.digest(key.encode()).hex()[:DIGEST_SIZE] if key else None
        return _Request(token, Attempt(token.generation, digest, presented.active), presented, now)

    async def _write(self, request: _Request) -> _Step:
        """Decide again and apply the decision, in a transaction that writes."""
        return await self._store.run(lambda tx: self._decide_and_write(tx, request))

    async def _decide_and_write(self, tx: Transaction, request: _Request) -> _Step:
        """Decide and apply the decision in one guarded statement, while holding the lock on the user's row.

        If the session changed between the read and the statement, the statement matches no row, and the
        session is read and decided again.
        """
        await tx.users.lock({request.token.user_id})
        for _ in range(TRIES):
            session, user = self._living(await tx.sessions.get_with_user(*request.key), request)
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
        """Write a decision; None if the row no longer has the state that the decision is based on."""
        if not decision.writes:
            return session
        if decision.outcome == "reuse":
            ended = await self._sessions.end(
                tx, session.user_id, [session.id], "refresh_reuse", request.now, request.presented.client
            )
            return session if ended else None
        if decision.outcome == "rotation":
            rotated = await tx.session_batches.rotate([self._rotation(request)])
            return _after_rotation(session, request, rotated[request.key]) if rotated else None
        return await tx.sessions.note_refresh(session, request.attempt, decision, request.now)

    def _living(self, found: Found, request: _Request) -> tuple[Session, User]:
        """Return the token's session, if it is active, and its user (steps 1 and 2 of design 4.3)."""
        if found is None or found[0].secret_digest != request.token.secret_digest:
            raise InvalidRefreshToken
        if found[0].transport != request.presented.transport:
            raise InvalidRefreshToken
        ensure_active(found[0], request.now)
        return found

    async def _tell(self, tx: Transaction, session: Session, decision: Decision, request: _Request) -> None:
        """Record a suspicious refresh in the audit log; ordinary ones are only counted."""
        kind = _to_audit(session, decision, request)
        if kind is not None:
            where = request.presented.client
            await tx.events.add(
                audit.event(kind, request.now, user_id=session.user_id, session_id=session.id, client=where)
            )


def _after_rotation(session: Session, request: _Request, auth_time: datetime) -> Session:
    return policy.rotated(session, request.attempt, request.now, request.presented.client.ip, auth_time)


def _to_audit(session: Session, decision: Decision, request: _Request) -> audit.Kind | None:
    """Return the event of a suspicious refresh: its rotation was lost, or it was repeated from another IP."""
    if request.attempt.generation > session.generation:
        return "session.generation_ahead"
    if decision.outcome == "repeat" and request.presented.client.ip != session.ip:
        return "session.repeated_elsewhere"
    return None
