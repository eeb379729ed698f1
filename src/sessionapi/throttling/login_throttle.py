"""Login throttle: limits password guessing, across processes and restarts.

An attempt is reserved in the database before its hash is computed, whether or not the user exists. A right
password clears the counters, and a wrong one leaves them unchanged. So no number of concurrent attempts can
exceed a limit.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sessionapi import audit
from sessionapi.clock import Clock
from sessionapi.errors import RateLimited
from sessionapi.metrics import Metrics
from sessionapi.models import Client, FailureCounters
from sessionapi.storage import Store, Transaction
from sessionapi.throttling.device_token import DeviceTokens
from sessionapi.throttling.limits import FailureCounterKeys, network, refusal
from sessionapi.throttling.rate_limiter import RateLimiter

FLOOD_DELAY = 2
"""Seconds that a refusal is delayed: with 400 connections this allows 200 refusals a second."""


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A reserved password attempt. `ends_the_row` is true if it is the last consecutive one allowed."""

    buckets: FailureCounters
    user_id: UUID | None
    ends_the_row: bool


@dataclass(slots=True)
class Throttle:
    """Throttle of one store and of this process. When it is off, nothing is counted or refused."""

    store: Store
    limiter: RateLimiter
    device_tokens: DeviceTokens
    keys: FailureCounterKeys
    clock: Clock
    metrics: Metrics
    enabled: bool

    def count_login(self, client: Client) -> None:
        """Count a login of this network in memory, or raise RateLimited."""
        self.limiter.count("login", network(client.ip))

    def count_signup(self, client: Client) -> None:
        """Count a sign-up of this network in memory, or raise RateLimited."""
        self.limiter.count("signup", network(client.ip))

    def count_new_name(self, user_id: UUID, client: Client) -> None:
        """Count a change of username in memory, or raise RateLimited.

        The response reveals whether the name is taken, as a sign-up's does, so the limit of the network is
        the same.
        """
        self.limiter.count("signup", user_id.hex)
        self.limiter.count("signup", network(client.ip))

    def count_reset(self, user_id: UUID) -> None:
        """Count the hash of a user's password reset in memory, or raise RateLimited."""
        self.limiter.count("attempt", f"reset {user_id.hex}")

    def count_write(self, user_id: str, session_id: str, *, deletes: bool = False) -> None:
        """Count, in memory, a request of a session that may change something, or raise RateLimited.

        A DELETE counts only towards its session: a thief's sessions must not use up the limit that the owner
        needs to end them.
        """
        self.limiter.count("write", session_id)
        if not deletes:
            self.limiter.count("write_user", user_id)

    def check_in_session(self, user_id: UUID, client: Client) -> None:
        """Raise RateLimited if an attempt in a session would be refused in memory, before any query."""
        self.limiter.check("attempt", _in_session(user_id))
        self.limiter.check("attempt_address", network(client.ip))

    async def slow_down(self, client: Client) -> None:
        """Delay a refusal by a limit if its network keeps sending requests regardless.

        Otherwise such requests, although each costs little, keep the event loop busy: 400 connections of them
        cost other clients 73 % of their logins (measured).
        """
        if self.limiter.is_flooding(network(client.ip)):
            await asyncio.sleep(FLOOD_DELAY)

    async def reserve_login(
        self, tx: Transaction, user_id: UUID | None, typed: str, device_token: str | None, client: Client
    ) -> LoginAttempt:
        """Reserve a login: under the device if it is known for this user, else under network and account."""
        device = self.device_tokens.read(device_token, user_id) if user_id else None
        if user_id and device:
            attempt = await self._reserve(tx, self.keys.for_device(user_id, device), user_id)
            self.limiter.count("attempt", f"device {user_id.hex}")
            return attempt
        attempt = await self._reserve(tx, self.keys.for_unknown_device(user_id or typed, client.ip), user_id)
        self.limiter.count("attempt", attempt.buckets.in_a_row.key.hex())
        return attempt

    async def reserve_in_session(
        self, tx: Transaction, user_id: UUID, session_id: UUID, client: Client
    ) -> LoginAttempt:
        """Reserve an attempt in an active session, whose counters a stranger cannot use up.

        All sessions of the user share one window. It is counted after the session's counters, so that an
        attempt which they refuse does not use up the window of the other sessions.
        """
        attempt = await self._reserve(tx, self.keys.of_session(session_id), user_id)
        self.limiter.count("attempt", _in_session(user_id))
        self.limiter.count("attempt_address", network(client.ip))
        return attempt

    async def failed(self, attempt: LoginAttempt, client: Client) -> None:
        """Leave a failed attempt reserved, and record it in the audit log if it was for an account.

        For an unknown user, rewrite the counters unchanged, so that the response takes as long as for a known
        one (ASVS 6.3.8; measured).
        """
        await self.store.run(lambda tx: self._note_failure(tx, attempt, client))

    async def _note_failure(self, tx: Transaction, attempt: LoginAttempt, client: Client) -> None:
        now = self.clock()
        if attempt.user_id is None:
            await tx.login_attempts.rewrite(attempt.buckets)
            return
        details = {"on": attempt.buckets.on}
        kinds: tuple[audit.Kind, ...] = ("user.login_failed", "user.locked_out")
        for kind in kinds if attempt.ends_the_row else kinds[:1]:
            event = audit.event(kind, now, user_id=attempt.user_id, client=client, details=details)
            await tx.events.add(event)

    async def succeeded(self, tx: Transaction, attempt: LoginAttempt) -> None:
        """Clear the counters of the attempt, in the transaction that its password authorises."""
        if self.enabled:
            await tx.login_attempts.clear(attempt.buckets)

    async def locked(self, user_ids: Collection[UUID]) -> set[UUID]:
        """Return those of the accounts whose password is refused on unknown devices."""
        keys = {self.keys.account(user_id): user_id for user_id in user_ids}
        async with self.store.read() as tx:
            full = await tx.login_attempts.full(list(keys), self.keys.limits.account_failures)
        return {keys[bucket] for bucket in full}

    async def _reserve(self, tx: Transaction, buckets: FailureCounters, user_id: UUID | None) -> LoginAttempt:
        """Count an attempt in both counters or in neither: a refusal rolls the transaction back."""
        if not self.enabled:
            return LoginAttempt(buckets, user_id, ends_the_row=False)
        counts = await tx.login_attempts.reserve(buckets, user_id, self.clock())
        if len(counts) < len(buckets.both):
            raise await self._refusal(tx, buckets, counts)
        count, quota = counts[buckets.in_a_row.key], buckets.in_a_row.quota
        return LoginAttempt(buckets, user_id, ends_the_row=count == quota)

    async def _refusal(
        self, tx: Transaction, buckets: FailureCounters, counts: Collection[bytes]
    ) -> RateLimited:
        """Return the error. A lock, which does not expire, looks the same as a limit of some minutes."""
        self.metrics.throttled.labels("password").inc()
        window = self.keys.limits.login_failures_window
        ends_at = (
            await tx.login_attempts.expires_at(buckets.recent.key)
            if buckets.recent.key not in counts
            else None
        )
        wait = (ends_at - self.clock()).total_seconds() if ends_at else window
        return refusal("password", self.keys.limits.login_failures, window, wait)


def _in_session(user_id: UUID) -> str:
    """Return the key that a user's password checks in all sessions are counted under."""
    return f"session {user_id.hex}"
