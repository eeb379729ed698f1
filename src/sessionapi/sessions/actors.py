"""Authorisation of writes: the caller is checked again inside the transaction that writes.

An access token is checked when its request arrives. Before the write happens, the request may wait for a hash
or for a row lock. In that time its session may be ended, or its user may lose a role. So every operation that
writes for a caller runs inside `Actors.run`. In one transaction it locks the rows of the caller and of the
account that the operation is about, checks the caller again, and does the work.

A transaction that ends sessions first locks the row of their user. So a caller's session that is active while
the caller's row is locked stays active until the commit, and needs no separate lock.
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
"""The work of an operation. It receives the transaction, the locked row of the account, and the time."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Caller with an access token, who may also need a given `role` and a recent login."""

    user_id: UUID
    session_id: UUID
    auth_time: int
    client: Client
    role: str | None = None
    needs_recent_login: bool = False

    def with_recent_login(self) -> "Actor":
        """Return this caller with the requirement of a recent login (ASVS 7.5.1)."""
        return replace(self, needs_recent_login=True)

    def as_admin(self) -> "Actor":
        """Return this caller with the requirement of the administrator role and a recent login."""
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
    """Return (user id, session id) of a verified token. Both ids were issued by us."""
    user_id, session_id = ids.parse("user", claims.user_id), ids.parse("sess", claims.session_id)
    if user_id is None or session_id is None:
        raise InvalidToken
    return user_id, session_id


@dataclass(slots=True)
class Actors:
    """Authorisation of callers against the rows of one store."""

    store: Store
    policy: Policy
    clock: Clock

    async def run(self, caller: Caller, user_id: UUID, work: Work[T]) -> T:
        """Run `work` on an account on behalf of a caller, in one transaction.

        Raises NotFound if the account does not exist, SessionRevoked or SessionExpired if the caller's
        session has ended, Forbidden if the role is missing, and ReauthenticationRequired without a recent
        login.
        """
        return await self.store.run(lambda tx: self._checked(tx, caller, user_id, work))

    async def check(self, actor: Actor) -> None:
        """Raise the same errors as `run`, based on the current rows. This is enough for reads."""
        async with self.store.read() as tx:
            session, user = await tx.sessions.get_with_user(actor.user_id, actor.session_id) or (None, None)
        self._refuse(actor, user, session, self.clock())

    async def _checked(self, tx: Transaction, caller: Caller, user_id: UUID, work: Work[T]) -> T:
        if isinstance(caller, Operator):
            users = await tx.users.lock({user_id})
            now = self.clock()
        else:
            users = await tx.users.lock({user_id, caller.user_id})
            session = await tx.sessions.get(caller.user_id, caller.session_id)
            now = self.clock()
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
        if actor.needs_recent_login and not policy.is_recent(actor.auth_time, now, self.policy):
            raise ReauthenticationRequired
