"""What a password opens: signing up, logging in, confirming it again, changing it."""

import re
import unicodedata
from uuid import UUID

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import (
    FieldError,
    InvalidCredentials,
    SignupClosed,
    UsernameTaken,
    ValidationFailed,
    WeakPassword,
)
from sessionapi.issuer import Tokens
from sessionapi.model import Client, User
from sessionapi.passwords import Passwords
from sessionapi.sessions import Device, Sessions
from sessionapi.storage import Store

MIN_PASSWORD, MAX_PASSWORD = 8, 256
"""Characters (ASVS 6.2.1, 6.2.9: at least 8, and at least 64 taken)."""
_USERNAME = re.compile(r"[\w.@+-]{1,150}")


class Users:
    """Accounts in one store, as far as passwords go."""

    def __init__(
        self, store: Store, passwords: Passwords, sessions: Sessions, clock: Clock, *, signup_open: bool
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._sessions = sessions
        self._clock = clock
        self._signup_open = signup_open

    async def sign_up(self, username: str, password: str, email: str | None, device: Device) -> Tokens:
        """Create a user and start the first session, both or neither."""
        if not self._signup_open:
            raise SignupClosed
        name, key = normalise(username)
        refuse_weak(password)
        hashed = await self._passwords.hash(password)
        now = self._clock()
        user = User(ids.new_id(), name, email, hashed, 0, (), {}, {}, now)
        async with self._store.begin() as tx:
            if await tx.insert_user(user, key):
                await tx.record(audit.event("user.created", now, user_id=user.id, client=device.client))
                return await self._sessions.start(tx, user, device, now)
        raise UsernameTaken

    async def log_in(self, username: str, password: str, device: Device) -> Tokens:
        """Verify the password, then start a session, unless the credentials changed in between."""
        user = await self._authenticate(await self._find(username), password)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                return await self._sessions.start(tx, user, device, now)
        raise InvalidCredentials

    async def reauthenticate(self, user_id: UUID, session_id: UUID, password: str) -> Tokens:
        """Confirm the password in a living session, which moves its `auth_time`."""
        user = await self._authenticate(await self._get(user_id), password)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                return await self._sessions.reauthenticated(tx, user, session_id, now)
        raise InvalidCredentials

    async def change_password(
        self, user_id: UUID, session_id: UUID, current: str, new: str, client: Client
    ) -> Tokens:
        """Set a new password: the other sessions end, and the present one is given a new secret.

        All in one transaction, which also asks whether the password that was verified is still the one.
        """
        refuse_weak(new, "new_password")
        user = await self._authenticate(await self._get(user_id), current)
        hashed = await self._passwords.hash(new)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                await tx.renew_credentials(user.id, password_hash=hashed)
                await tx.record(audit.event("user.password_changed", now, user_id=user.id, client=client))
                await self._sessions.end_all(tx, user.id, "password_changed", now, client, keep=session_id)
                return await self._sessions.renew_secret(tx, user, session_id, now)
        raise InvalidCredentials

    async def _authenticate(self, user: User | None, password: str) -> User:
        """Return the enabled user whose password this is.

        An unknown user, one without a password, a disabled one and a wrong password cost one hash each and
        look alike (ASVS 6.3.8).
        """
        hashed = user.password_hash if user else None
        right, upgraded = await self._passwords.verify(password, hashed)
        if user is None or hashed is None or not right or user.disabled_at is not None:
            raise InvalidCredentials
        if upgraded is not None:
            async with self._store.begin() as tx:
                await tx.upgrade_hash(user.id, verified=hashed, upgraded=upgraded)
        return user

    async def _find(self, username: str) -> User | None:
        try:
            _, key = normalise(username)
        except ValidationFailed:
            return None  # no such name can exist; no query with what may not even be text for the database
        async with self._store.read() as tx:
            return await tx.user_by_name(key)

    async def _get(self, user_id: UUID) -> User | None:
        async with self._store.read() as tx:
            return await tx.user(user_id)


def normalise(username: str) -> tuple[str, str]:
    """Return (name as kept, key that is unique): NFKC, and its casefold (design 4.1)."""
    name = unicodedata.normalize("NFKC", username)
    if not _USERNAME.fullmatch(name):
        text = "Use 1 to 150 letters, digits and @ . + - _"
        raise ValidationFailed(field_errors=[FieldError("username", "invalid_username", text)])
    return name, unicodedata.normalize("NFKC", name.casefold())


def refuse_weak(password: str, field: str = "password") -> None:
    """Raise WeakPassword for a password that is too short or too long; its letters are never changed."""
    if len(password) < MIN_PASSWORD:
        text = f"Use at least {MIN_PASSWORD} characters."
        raise WeakPassword(text, [FieldError(field, "too_short", text)])
    if len(password) > MAX_PASSWORD:
        text = f"Use at most {MAX_PASSWORD} characters."
        raise WeakPassword(text, [FieldError(field, "too_long", text)])
