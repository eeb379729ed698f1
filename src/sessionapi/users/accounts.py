"""Account operations that need no password, for owners, administrators and the command line.

All three callers use the same operations, so disabling an account always ends its sessions.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sessionapi import audit, identifiers, ids
from sessionapi.clock import Clock
from sessionapi.errors import FieldError, NotFound, UsernameTaken, ValidationFailed
from sessionapi.models import Client, Event, Page, User
from sessionapi.sessions import json_data
from sessionapi.sessions.actors import OPERATOR, Actor, Actors, Caller
from sessionapi.sessions.lifecycle import Sessions
from sessionapi.storage import Store, Transaction
from sessionapi.throttling.limits import network
from sessionapi.throttling.login_throttle import Throttle
from sessionapi.tokens.issuer import Issuer
from sessionapi.users.password_policy import PasswordRules
from sessionapi.users.passwords import Passwords

RESET_TTL = timedelta(minutes=30)
"""Lifetime of a one-time token for a new password (OWASP: a short one; it leaves time to read the e-mail)."""
EMAIL = r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+"
MAX_EMAIL = 320
"""Maximum length in characters: 64 before the @ and 255 after it (RFC 5321)."""
ROLE = r"[A-Za-z0-9_.:-]+"
MAX_ROLE, MAX_ROLES = 64, 32
_EMPTIED: dict[str, Any] = {
    "username": "",
    "email": None,
    "password_hash": None,
    "roles": [],
    "claims": {},
    "preferences": {},
}


@dataclass(slots=True)
class Accounts:
    """The accounts in one store."""

    store: Store
    passwords: Passwords
    rules: PasswordRules
    throttle: Throttle
    sessions: Sessions
    actors: Actors
    issuer: Issuer
    clock: Clock

    async def get(self, user_id: UUID) -> User:
        """Return an account that is not deleted, else raise NotFound."""
        async with self.store.read() as tx:
            user = await tx.users.get(user_id)
        return _present(user)

    async def find(self, username: str) -> User:
        """Return the account with this username, else raise NotFound."""
        key = identifiers.lookup_key(username)
        async with self.store.read() as tx:
            return _present(await tx.users.by_name(key) if key else None)

    async def page(self, limit: int, after: UUID | None = None) -> Page[User, UUID]:
        """Return one page of accounts, oldest first, beginning after the id `after`."""
        async with self.store.read() as tx:
            rows = await tx.users.page(limit + 1, after)
        return Page.of(rows, limit, lambda user: user.id)

    async def events(
        self, limit: int, before: UUID | None = None, user_id: UUID | None = None
    ) -> Page[Event, UUID]:
        """Return one page of the audit log, newest first, all older than the id `before`."""
        async with self.store.read() as tx:
            rows = await tx.events.page(limit + 1, before, user_id)
        return Page.of(rows, limit, lambda event: event.id)

    async def add(
        self, username: str, email: str | None, *, password: str | None, hashed: str | None
    ) -> User:
        """Create an account from a password, or from a hash of another system. No session is started."""
        name, key = identifiers.parse_name(username)
        email = identifiers.strip(email) if email is not None else None
        _refuse_malformed(email, ())
        if password is not None:
            await self.rules.refuse_weak(password, name, email)
            with self.passwords.place("command line") as place:
                hashed = await self.passwords.hash(password, place)
        elif hashed is not None:
            hashed = self.passwords.read_import(hashed.strip())
        now = self.clock()
        user = User(ids.new_id(), name, email, hashed, 0, (), {}, {}, now)

        async def work(tx: Transaction) -> bool:
            inserted = await tx.users.insert(user, key)
            if inserted:
                await tx.events.add(audit.event("user.created", now, user_id=user.id))
            return inserted

        if not await self.store.run(work):
            raise UsernameTaken
        return user

    async def change(self, user_id: UUID, caller: Caller, given: Mapping[str, Any]) -> User:
        """Change the given fields: username, email, preferences, roles, claims, disabled, locked.

        Either all of them are changed or none. Preferences are merged (RFC 7396), everything else is
        replaced; an email of None removes the address. `disabled` also ends all sessions, and `locked` can
        only be False. A field that already has the given value is neither written nor recorded.
        """

        async def work(tx: Transaction, user: User, now: datetime) -> None:
            await self._change(tx, user, now, caller, given)
            if given.get("disabled") is not None:
                act = self._disable if given["disabled"] else self._enable
                await act(tx, user, now, caller)
            if given.get("locked") is False:
                await self._unlock(tx, user, now, caller)

        await self.actors.run(caller, user_id, work)
        return await self.get(user_id)

    async def disable(self, user_id: UUID, caller: Caller) -> None:
        """Disable an account and end its sessions."""
        await self.actors.run(caller, user_id, lambda tx, user, now: self._disable(tx, user, now, caller))

    async def enable(self, user_id: UUID, caller: Caller) -> None:
        """Let a disabled account log in again. Its ended sessions stay ended."""
        await self.actors.run(caller, user_id, lambda tx, user, now: self._enable(tx, user, now, caller))

    async def unlock(self, user_id: UUID, caller: Caller) -> None:
        """Unlock an account: clear its failed attempts, so that its password is accepted everywhere again."""
        await self.actors.run(caller, user_id, lambda tx, user, now: self._unlock(tx, user, now, caller))

    async def delete(self, user_id: UUID, caller: Caller) -> None:
        """Delete an account's data, end its sessions and free its username.

        The emptied row and the revoked sessions stay until they are purged, so that every process reads the
        revocations. A row without sessions is deleted at once.
        """

        async def work(tx: Transaction, user: User, now: datetime) -> None:
            # No username contains a colon, so this key cannot belong to another account.
            emptied = {**_EMPTIED, "username_key": f"deleted:{user.id.hex}", "deleted_at": now}
            await tx.users.bump_credential_version(user.id, **emptied)
            await tx.login_attempts.clear_of_user(user.id)
            await tx.events.add(audit.event("user.deleted", now, user_id=user.id, client=caller.client))
            await self.sessions.end_all(tx, user.id, "user_deleted", now, caller.client)
            await tx.password_resets.delete(user.id)
            await tx.users.purge([user.id])

        await self.actors.run(caller, user_id, work)

    async def make_reset_token(self, user_id: UUID) -> str:
        """Return a one-time token that sets a new password within 30 minutes. It voids any earlier one."""
        token = f"pr_{ids.new_secret(32).hex()}"
        digest = ids.digest(token.encode())

        async def work(tx: Transaction, user: User, now: datetime) -> None:
            await tx.password_resets.insert(user.id, digest, now + RESET_TTL)
            await tx.events.add(audit.event("user.password_reset_token_made", now, user_id=user.id))

        await self.actors.run(OPERATOR, user_id, work)
        return token

    async def reset_password(self, token: str, new: str, client: Client) -> None:
        """Set a new password with a one-time token, and end all sessions.

        The request counts towards the login limit of its network, and the hash towards a limit of its user.
        """
        self.throttle.count_login(client)
        digest = ids.digest(token.encode())
        async with self.store.read() as tx:
            user_id = await tx.password_resets.user_id(digest, self.clock())
            user = await tx.users.get(user_id) if user_id else None
        if user is None:
            raise _no_such_reset()
        self.rules.refuse_guessable(new, user.username, user.email, "new_password")
        self.throttle.count_reset(user.id)  # before the breached-password look-up
        await self.rules.refuse_weak(new, user.username, user.email, "new_password")
        with self.passwords.place(network(client.ip)) as place:
            place.assign(user.id)
            hashed = await self.passwords.hash(new, place)
        if not await self.store.run(lambda tx: self._reset(tx, user.id, digest, hashed, client)):
            raise _no_such_reset()

    async def _reset(
        self, tx: Transaction, user_id: UUID, digest: bytes, hashed: str, client: Client
    ) -> bool:
        """Use up a one-time token; False if another request has used it or if it has expired."""
        await tx.users.lock({user_id})
        now = self.clock()
        if not await tx.password_resets.use(digest, now):
            return False
        if not await tx.users.bump_credential_version(user_id, password_hash=hashed):
            return False
        await tx.login_attempts.clear_of_user(user_id)
        await tx.events.add(audit.event("user.password_reset", now, user_id=user_id, client=client))
        await self.sessions.end_all(tx, user_id, "password_reset", now, client)
        return True

    async def _change(
        self, tx: Transaction, user: User, now: datetime, caller: Caller, given: Mapping[str, Any]
    ) -> None:
        """Write the columns that change. An owner's new username counts towards the limit of sign-ups.

        That of an administrator or the command line does not, because they can list all names anyway.
        """
        changes = _changes(user, given)
        if changes.keys() & {"roles", "claims"}:
            roles, claims = tuple(changes.get("roles", user.roles)), changes.get("claims", user.claims)
            self.issuer.refuse_oversized(user, replace(user, roles=roles, claims=claims))
        by_owner = isinstance(caller, Actor) and caller.role is None
        own_key = identifiers.lookup_key(user.username)
        if by_owner and changes.get("username_key", own_key) != own_key:
            self.throttle.count_new_name(user.id, caller.client)
        if changes and await tx.users.change(user.id, **changes) is False:
            raise UsernameTaken
        if changes:
            details = {"members": sorted(changes.keys() - {"username_key"})}
            changed = audit.event("user.changed", now, user_id=user.id, client=caller.client, details=details)
            await tx.events.add(changed)

    async def _disable(self, tx: Transaction, user: User, now: datetime, caller: Caller) -> None:
        if user.disabled_at is None:
            await tx.users.bump_credential_version(user.id, disabled_at=now)
            await tx.events.add(audit.event("user.disabled", now, user_id=user.id, client=caller.client))
            await self.sessions.end_all(tx, user.id, "user_disabled", now, caller.client)

    async def _enable(self, tx: Transaction, user: User, now: datetime, caller: Caller) -> None:
        if user.disabled_at is not None:
            await tx.users.bump_credential_version(user.id, disabled_at=None)
            await tx.events.add(audit.event("user.enabled", now, user_id=user.id, client=caller.client))

    async def _unlock(self, tx: Transaction, user: User, now: datetime, caller: Caller) -> None:
        if await tx.login_attempts.clear_of_user(user.id):
            await tx.events.add(audit.event("user.unlocked", now, user_id=user.id, client=caller.client))


def _present(user: User | None) -> User:
    if user is None or user.deleted_at is not None:
        raise NotFound
    return user


def _changes(user: User, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns to change; a column that already has the given value is left out."""
    _refuse_malformed(given.get("email"), given.get("roles") or ())
    changes: dict[str, Any] = {}
    if "email" in given:
        changes["email"] = given["email"]
    if given.get("preferences") is not None:
        changes["preferences"] = json_data.bounded(json_data.merge(user.preferences, given["preferences"]))
    if given.get("roles") is not None:
        changes["roles"] = list(given["roles"])
    if given.get("claims") is not None:
        changes["claims"] = json_data.bounded(given["claims"])
    changes = {
        name: new for name, new in changes.items() if not json_data.same_json(new, getattr(user, name))
    }
    if given.get("username") is not None:
        name, key = identifiers.parse_name(given["username"])
        if name != user.username:
            changes |= {"username": name, "username_key": key}
    return changes


def _refuse_malformed(email: str | None, roles: Sequence[str]) -> None:
    if email is not None and (len(email) > MAX_EMAIL or not re.fullmatch(EMAIL, email)):
        text = "Use an address such as ada@example.com."
        raise ValidationFailed(field_errors=[FieldError("email", "invalid_email", text)])
    sign = identifiers.invisible(email or "")
    if sign is not None:
        text = f"Remove the invisible character U+{ord(sign):04X}."
        raise ValidationFailed(field_errors=[FieldError("email", "invalid_email", text)])
    if len(roles) > MAX_ROLES or not all(
        len(role) <= MAX_ROLE and re.fullmatch(ROLE, role) for role in roles
    ):
        text = f"Use at most {MAX_ROLES} roles of 1 to {MAX_ROLE} characters. Allowed: A-Z a-z 0-9 _ . : -"
        raise ValidationFailed(field_errors=[FieldError("roles", "invalid_role", text)])


def _no_such_reset() -> ValidationFailed:
    text = "This link has been used or is older than 30 minutes. Request a new one."
    return ValidationFailed(text, [FieldError("token", "invalid_or_used", text)])
