"""The caller of a write, and the one place where it is checked.

An access token is checked when its request arrives. Before the write happens, the request may wait for a hash
or for a row. In that time its session may be ended, or its user may lose a role. So every operation that
writes for a caller runs inside `Actors.run`: it locks the rows of the caller and of the account that the
operation is about, checks the caller again, and does the work, all in one transaction.

A transaction that ends sessions locks the row of their user first. So a caller's session that is active while
the caller's row is locked stays active until the commit, and needs no lock of its own.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sessionapi import ids
from sessionapi.clock import Clock
from sessionapi.errors import Forbidden, InvalidToken, NotFound, ReauthenticationRequired, SessionRevoked
from sessionapi.models import Client, Session, User
from sessionapi.sessions import policy
from sessionapi.sessions.policy import Policy
from sessionapi.storage import Store, Transaction
from sessionapi.tokens.access_token import Claims

ADMIN = "admin"
T = TypeVar("T")
Work = Callable[[Transaction, User, datetime], Awaitable[T]]
"""What an operation does with the locked row of its account, at the time of its transaction."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller with an access token. `role`, if set, and a recent login are required as well."""

    user_id: UUID
    session_id: UUID
    auth_time: int
    client: Client
    role: str | None = None
    needs_recent_login: bool = False

    def with_recent_login(self) -> "Actor":
        """Return this caller, required to have logged in recently (ASVS 7.5.1)."""
        return replace(self, needs_recent_login=True)

    def as_admin(self) -> "Actor":
        """Return this caller, required to be an administrator who has logged in recently."""
        return replace(self, role=ADMIN, needs_recent_login=True)


@dataclass(frozen=True, slots=True)
class Operator:
    """The command line. Its user can write to the database directly, so there is nothing to check."""

    client: Client = Client()  # noqa: RUF009 - it is frozen


OPERATOR = Operator()
Caller = Actor | Operator


def actor_of(claims: Claims, client: Client) -> Actor:
    """Return the caller of a verified access token."""
    user_id, session_id = owner(claims)
    return Actor(user_id, session_id, claims.auth_time, client)


def owner(claims: Claims) -> tuple[UUID, UUID]:
    """Return (user id, session id) of a verified token: we made both."""
    user_id, session_id = ids.parse("user", claims.user_id), ids.parse("sess", claims.session_id)
    if user_id is None or session_id is None:
        raise InvalidToken
    return user_id, session_id


class Actors:
    """The checks of callers against one store."""

    def __init__(self, store: Store, the_policy: Policy, clock: Clock) -> None:
        self._store = store
        self._policy = the_policy
        self._clock = clock

    async def run(self, caller: Caller, user_id: UUID, work: Work[T]) -> T:
        """Do some work on an account for a caller, in one transaction.

        Raises NotFound if there is no such account. Raises SessionRevoked or SessionExpired for a caller
        whose session has ended, Forbidden without the role, ReauthenticationRequired without a recent login.
        """
        return await self._store.run(lambda tx: self._checked(tx, caller, user_id, work))

    async def check(self, actor: Actor) -> None:
        """Raise what `run` raises for a caller, by the rows as they are now: enough for reading."""
        async with self._store.read() as tx:
            session, user = await tx.session_and_user(actor.user_id, actor.session_id) or (None, None)
        self._refuse(actor, user, session, self._clock())

    async def _checked(self, tx: Transaction, caller: Caller, user_id: UUID, work: Work[T]) -> T:
        if isinstance(caller, Operator):
            users = await tx.lock_users({user_id})
            now = self._clock()
        else:
            users = await tx.lock_users({user_id, caller.user_id})
            session = await tx.session(caller.user_id, caller.session_id)
            now = self._clock()
            self._refuse(caller, users.get(caller.user_id), session, now)
        user = users.get(user_id)
        if user is None or user.deleted_at is not None:
            raise NotFound
        return await work(tx, user, now)

    def _refuse(self, actor: Actor, user: User | None, session: Session | None, now: datetime) -> None:
        policy.ensure_active(session, now)
        if user is None or user.deleted_at is not None:
            raise SessionRevoked("user_deleted")
        if user.disabled_at is not None:
            raise SessionRevoked("user_disabled")
        if actor.role is not None and actor.role not in user.roles:
            raise Forbidden
        if actor.needs_recent_login and not policy.is_recent(actor.auth_time, now, self._policy):
            raise ReauthenticationRequired
