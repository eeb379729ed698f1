"""What is done with accounts: sign up, log in, read."""

import re
import unicodedata
from uuid import UUID

from sessionapi import audit, ids
from sessionapi.clock import Clock
from sessionapi.errors import (
    FieldError,
    InvalidCredentials,
    NotFound,
    SignupClosed,
    UsernameTaken,
    ValidationFailed,
    WeakPassword,
)
from sessionapi.model import User
from sessionapi.passwords import Passwords
from sessionapi.sessions import Device, Sessions, Tokens
from sessionapi.storage import Store

MIN_PASSWORD, MAX_PASSWORD = 8, 256
"""Characters (ASVS 6.2.1, 6.2.9: at least 8, and at least 64 taken)."""
_USERNAME = re.compile(r"[\w.@+-]{1,150}")


class Users:
    """Accounts in one store."""

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
        user = await self._authenticate(username, password)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                return await self._sessions.start(tx, user, device, now)
        raise InvalidCredentials

    async def get(self, user_id: UUID) -> User:
        """Return a living account."""
        async with self._store.read() as tx:
            user = await tx.user(user_id)
        if user is None or user.deleted_at is not None:
            raise NotFound
        return user

    async def _authenticate(self, username: str, password: str) -> User:
        """Return the enabled user whose password this is; all that is wrong costs one hash and looks alike."""
        user = await self._find(username)
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


def normalise(username: str) -> tuple[str, str]:
    """Return (name as kept, key that is unique): NFKC, and its casefold (design 4.1)."""
    name = unicodedata.normalize("NFKC", username)
    if not _USERNAME.fullmatch(name):
        text = "Use 1 to 150 letters, digits and @ . + - _"
        raise ValidationFailed(field_errors=[FieldError("username", "invalid_username", text)])
    return name, unicodedata.normalize("NFKC", name.casefold())


def refuse_weak(password: str) -> None:
    """Raise WeakPassword for a password that is too short; its letters are never changed."""
    if len(password) < MIN_PASSWORD:
        text = f"Use at least {MIN_PASSWORD} characters."
        raise WeakPassword(text, [FieldError("password", "too_short", text)])
