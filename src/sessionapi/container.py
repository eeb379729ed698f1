"""The composition root: `build` turns settings into a `Container`."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from threading import Event

from sessionapi import ids
from sessionapi.clock import Clock, system_clock
from sessionapi.errors import StartupError, Unavailable
from sessionapi.keys import server_secret
from sessionapi.keys.keyring import KeyRing
from sessionapi.keys.rotation import Keys
from sessionapi.keys.server_secret import ServerSecret
from sessionapi.metrics import Metrics
from sessionapi.sessions.actors import Actors
from sessionapi.sessions.authentication import Authenticator
from sessionapi.sessions.bulk import AllSessions
from sessionapi.sessions.lifecycle import Sessions
from sessionapi.sessions.loader import SessionLoader
from sessionapi.sessions.marks import Marks
from sessionapi.sessions.policy import Policy
from sessionapi.sessions.purge import Purge
from sessionapi.sessions.refresh import Refreshes
from sessionapi.sessions.revocations import Revocations
from sessionapi.sessions.sync import StateSync
from sessionapi.settings import Settings
from sessionapi.storage import Store, database_url, migrations
from sessionapi.storage.database_url import Options
from sessionapi.throttling.device_token import DeviceTokens
from sessionapi.throttling.limits import FailureCounterKeys, RateLimits
from sessionapi.throttling.login_throttle import Throttle
from sessionapi.throttling.rate_limiter import RateLimiter
from sessionapi.tokens.access_token import TokenExpectations
from sessionapi.tokens.issuer import Issuer
from sessionapi.tokens.service_tokens import ServiceTokens
from sessionapi.users.accounts import Accounts
from sessionapi.users.login import Users
from sessionapi.users.password_policy import PasswordRules
from sessionapi.users.passwords import Passwords


@dataclass(frozen=True)
class Container:
    """All services of one process, with their dependencies."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    store: Store
    ring: KeyRing
    keys: Keys
    revocations: Revocations
    marks: Marks
    state_sync: StateSync
    checks: Authenticator
    actors: Actors
    service_tokens: ServiceTokens
    passwords: Passwords
    sessions: Sessions
    all_sessions: AllSessions
    throttle: Throttle
    users: Users
    accounts: Accounts
    refreshes: Refreshes
    purge: Purge
    shutting_down: Event
    """Set when this process is about to stop."""

    async def start(self) -> None:
        """Load what must be in memory before the first request: the key ring and recent revocations."""
        await self.keys.load()
        await self.state_sync.sync()

    def check_healthy(self) -> None:
        """Raise Unavailable unless this process has a signing key."""
        _ = self.ring.active

    async def check_ready(self) -> None:
        """Raise Unavailable, with the reason, unless this process can serve requests and is not stopping."""
        if self.shutting_down.is_set():
            raise Unavailable("This process is stopping.")
        self.check_healthy()
        self.state_sync.check()
        async with self.store.read() as tx:
            await tx.now()

    async def stop(self) -> None:
        """Stop the threads and close the connections."""
        await self.state_sync.settle()
        await self.refreshes.loader.drain()
        self.passwords.close()
        await self.store.close()


def build(settings: Settings, clock: Clock = system_clock) -> Container:
    """Connect the services. The only file that this reads, or creates if necessary, is the server secret."""
    secret, limits, policy = _server_secret(settings), limits_of(settings), policy_of(settings)
    metrics, store, ring, revocations = Metrics(), store_of(settings), KeyRing(), Revocations(clock)
    keys = Keys(
        store,
        ring,
        secret.derive("key ring"),
        clock,
        settings.algorithm,
        # Plus two polls, because every process has to load the key before it can publish it.
        published_for=timedelta(seconds=settings.jwks_max_age + 2 * settings.revocation_poll),
        max_age=timedelta(seconds=settings.key_max_age),
    )
    tokens = TokenExpectations(settings.effective_issuer, settings.audience)
    issuer = Issuer(ring, tokens, policy.access_token_ttl, secret.derive("refresh token"))
    state_sync = StateSync(store, keys, revocations, clock, settings.revocation_poll)
    marks = Marks(store, revocations, clock)
    actors = Actors(store, policy, clock)
    sessions = Sessions(store, issuer, actors, policy, revocations, clock)
    limiter = RateLimiter(limits, clock, metrics, enabled=settings.throttle)
    devices = DeviceTokens(secret.derive("device"))
    counters = FailureCounterKeys(secret.derive("throttle")[0], limits)
    throttle = Throttle(store, limiter, devices, counters, clock, metrics, settings.throttle)
    passwords, rules = _passwords(settings, metrics), password_rules_of(settings, metrics)
    signup_open = settings.signup == "open"
    return Container(
        settings=settings,
        clock=clock,
        metrics=metrics,
        store=store,
        ring=ring,
        keys=keys,
        revocations=revocations,
        marks=marks,
        state_sync=state_sync,
        checks=Authenticator(store, ring, tokens, revocations, state_sync, clock),
        actors=actors,
        service_tokens=ServiceTokens(store, clock),
        passwords=passwords,
        sessions=sessions,
        all_sessions=AllSessions(store, sessions, marks, clock),
        throttle=throttle,
        users=Users(store, passwords, rules, throttle, devices, sessions, actors, clock, signup_open),
        accounts=Accounts(store, passwords, rules, throttle, sessions, actors, issuer, clock),
        refreshes=Refreshes(store, SessionLoader(store), issuer, sessions, policy, limiter, clock, metrics),
        purge=Purge(store, clock, timedelta(seconds=settings.keep_ended)),
        shutting_down=Event(),
    )


async def bootstrap(settings: Settings, clock: Clock = system_clock, *, abandon_keys: bool = False) -> None:
    """Create what the first start needs: the data folder, the server secret, the schema and a signing key.

    Several processes may do this at once on one data folder. A file lock admits one at a time, and all but
    the first find that everything exists already. On PostgreSQL the schema is only checked. A secret that
    cannot decrypt the key ring is refused, unless `abandon_keys` is set, which drops the keys that it cannot
    decrypt.
    """
    with _data_folder(settings):
        app = build(settings, clock)
        try:
            if settings.embedded:
                await migrations.migrate(settings.effective_database_url)
            else:
                await migrations.check(settings.effective_database_url)
            if abandon_keys:
                await app.keys.abandon()
            await app.keys.ensure_active()
            await app.keys.load()
        except Unavailable as problem:
            where = settings.shown_database_url
            advice = database_url.advice(settings.effective_database_url)
            raise StartupError(
                f"the database at {where} can't be used: {problem.cause}; {advice}"
            ) from problem
        finally:
            await app.stop()


def store_of(settings: Settings) -> Store:
    """Return the store for the configured database."""
    options = Options(settings.database_pool, settings.database_timeout, settings.pgbouncer)
    return Store(settings.effective_database_url, options)


def policy_of(settings: Settings) -> Policy:
    """Return the configured lifetimes and limits of sessions."""
    spans = (
        "access_token_ttl",
        "idle_timeout",
        "session_ttl",
        "short_idle_timeout",
        "short_session_ttl",
        "rotate_after",
        "refresh_grace",
        "recent_login",
    )
    return Policy(
        **{name: timedelta(seconds=getattr(settings, name)) for name in spans},
        sessions_per_user=settings.sessions_per_user,
    )


def limits_of(settings: Settings) -> RateLimits:
    """Return the configured rate limits."""
    return RateLimits(**{field.name: getattr(settings, field.name) for field in fields(RateLimits)})


def password_rules_of(settings: Settings, metrics: Metrics) -> PasswordRules:
    """Return the rules for new passwords."""
    names = (settings.brand_name, "sessionapi")
    if not settings.breached_passwords:
        return PasswordRules(names)
    from sessionapi.users.breached_passwords import BreachedPasswords  # noqa: PLC0415 - 3 MB that few installations need

    return PasswordRules(names, BreachedPasswords(settings.breached_passwords_url, metrics).contains)


def _passwords(settings: Settings, metrics: Metrics) -> Passwords:
    threads = settings.hash_threads or _cores()
    return Passwords(
        memory_kib=settings.hash_memory_kib, time=settings.hash_time, threads=threads, metrics=metrics
    )


def _cores() -> int:
    """Return the number of cores that this process may use: more threads would only compete for them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _server_secret(settings: Settings) -> ServerSecret:
    accepted = [os.fsencode(value.get_secret_value()) for value in settings.secret_accepted]
    if settings.secret is not None:
        return ServerSecret(os.fsencode(settings.secret.get_secret_value()), accepted)
    if not settings.embedded:
        raise StartupError(
            "SESSIONAPI_SECRET is required with PostgreSQL: set it to at least 32 random bytes, "
            "the same on every host"
        )
    path = settings.secret_path
    try:
        current = server_secret.read_or_make(path, fresh=ids.new_secret(48).hex())
    except OSError as problem:
        raise StartupError(
            f"the server secret {path} can't be read or created: {problem.strerror}; "
            "check its permissions and the free space on its disk"
        ) from problem
    return ServerSecret(current, accepted, source=f"the server secret {path}")


@contextmanager
def _data_folder(settings: Settings) -> Iterator[None]:
    if not settings.embedded:
        yield
        return
    database_url.check(settings.effective_database_url)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(settings.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise StartupError(
            f"the data folder {settings.data_dir} can't be written: {problem.strerror}; "
            "set SESSIONAPI_DATA_DIR to a folder that this user can write"
        ) from problem
    try:
        _make_database_folder(settings.effective_database_url)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_database_folder(url: str) -> None:
    try:
        database_url.make_folder(url)
    except OSError as problem:
        raise StartupError(
            f"the folder of SESSIONAPI_DATABASE_URL={url} can't be created: {problem.strerror}; "
            "name a file in a folder that this user can write"
        ) from problem
