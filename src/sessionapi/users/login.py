"""Operations that need a password: sign-up, login, reauthentication and password change."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sessionapi import audit, identifiers, ids
from sessionapi.clock import Clock
from sessionapi.errors import InvalidCredentials, SignupClosed, UsernameTaken, WeakPassword
from sessionapi.models import Client, User
from sessionapi.sessions.actors import Actor, Actors
from sessionapi.sessions.lifecycle import Device, Sessions
from sessionapi.storage import Store, Transaction
from sessionapi.throttling.device_token import DeviceTokens
from sessionapi.throttling.limits import network
from sessionapi.throttling.login_throttle import LoginAttempt, Throttle
from sessionapi.tokens.issuer import Tokens
from sessionapi.users.hash_pool import Place
from sessionapi.users.password_policy import PasswordRules
from sessionapi.users.passwords import Passwords


@dataclass(slots=True)
class Users:
    """Password operations on the accounts in one store."""

    store: Store
    passwords: Passwords
    rules: PasswordRules
    throttle: Throttle
    device_tokens: DeviceTokens
    sessions: Sessions
    actors: Actors
    clock: Clock
    signup_open: bool

    async def sign_up(self, username: str, password: str, email: str | None, device: Device) -> Tokens:
        """Create a user and start the first session in one transaction."""
        if not self.signup_open:
            raise SignupClosed
        name, key = identifiers.parse_name(username)
        self.rules.refuse_guessable(password, name, email)
        self.throttle.count_signup(device.client)  # before any request to another service
        await self.rules.refuse_weak(password, name, email)
        with self.passwords.place(network(device.client.ip)) as place:
            place.assign(key)
            hashed = await self.passwords.hash(password, place)
        now = self.clock()
        user = User(ids.new_id(), name, email, hashed, 0, (), {}, {}, now)

        async def work(tx: Transaction) -> Tokens | None:
            if replaced := self.sessions.replaced_users(device):
                await tx.users.lock(replaced)
            if not await tx.users.insert(user, key):
                return None
            await tx.events.add(audit.event("user.created", now, user_id=user.id, client=device.client))
            return await self.sessions.start(tx, user, device, now)

        tokens = await self.store.run(work)
        if tokens is None:
            raise UsernameTaken
        return self._with_device_token(tokens, device)

    async def log_in(self, username: str, password: str, device: Device) -> Tokens:
        """Verify the password, then start a session, unless the credentials changed in between.

        The checks that can refuse an attempt run in order of cost: a counter in memory, the length of the
        queue, a reservation in the database, a hash.
        """
        self.throttle.count_login(device.client)
        with self.passwords.place(network(device.client.ip)) as place:
            found, attempt = await self._reserve(username, device, place)
            user = await self._authenticate(found, password, attempt, device.client, place)
        now = self.clock()
        tokens = await self.store.run(lambda tx: self._start(tx, user, attempt, device, now))
        return self._with_device_token(_unless_changed(tokens), device)

    async def _start(
        self, tx: Transaction, verified: User, attempt: LoginAttempt, device: Device, now: datetime
    ) -> Tokens | None:
        """Start a session after the password was verified; None if the credentials have changed since."""
        if others := self.sessions.replaced_users(device) - {verified.id}:
            await tx.users.lock({verified.id, *others})
        user = await tx.users.lock_if_unchanged(verified.id, verified.credential_version)
        if user is None:
            return None
        await self.throttle.succeeded(tx, attempt)
        return await self.sessions.start(tx, user, device, now)

    async def reauthenticate(self, actor: Actor, password: str) -> Tokens:
        """Confirm the password in the caller's session, which updates `auth_time` and renews the secret."""
        self.throttle.check_in_session(actor.user_id, actor.client)
        with self.passwords.place(actor.user_id) as place:
            place.assign(actor.user_id)
            verified, attempt = await self._verify_in_session(actor, password, place)

        async def work(tx: Transaction, user: User, now: datetime) -> Tokens | None:
            if user.credential_version != verified.credential_version:
                return None
            await self.throttle.succeeded(tx, attempt)
            return await self.sessions.renew_secret(tx, user, actor.session_id, now)

        return _unless_changed(await self.actors.run(actor, actor.user_id, work))

    async def change_password(self, actor: Actor, current: str, new: str) -> Tokens:
        """Set a new password, end the other sessions, and give the caller's session a new secret.

        All of this is one transaction, which also checks that the verified password is still the current one.
        The look-up of breached passwords comes last, after the attempt has been counted and the current
        password verified.
        """
        self.throttle.check_in_session(actor.user_id, actor.client)
        user = await self._get(actor.user_id)
        self.rules.refuse_guessable(new, user.username, user.email, "new_password")
        with self.passwords.place(actor.user_id) as place:
            place.assign(actor.user_id)
            verified, attempt = await self._verify_in_session(actor, current, place)
            await self._refuse_weak(new, verified, attempt)
            hashed = await self.passwords.hash(new, place)
        client, keep = actor.client, actor.session_id

        async def work(tx: Transaction, user: User, now: datetime) -> Tokens | None:
            if user.credential_version != verified.credential_version:
                return None
            await tx.users.bump_credential_version(user.id, password_hash=hashed)
            await tx.login_attempts.clear_of_user(user.id)
            await tx.events.add(audit.event("user.password_changed", now, user_id=user.id, client=client))
            await self.sessions.end_all(tx, user.id, "password_changed", now, client, keep)
            return await self.sessions.renew_secret(tx, user, keep, now)

        return _unless_changed(await self.actors.run(actor, actor.user_id, work))

    async def _refuse_weak(self, new: str, user: User, attempt: LoginAttempt) -> None:
        """Raise WeakPassword. The attempt is cleared first, because the current password was right."""
        try:
            await self.rules.refuse_weak(new, user.username, user.email, "new_password")
        except WeakPassword:
            await self.store.run(lambda tx: self.throttle.succeeded(tx, attempt))
            raise

    async def _verify_in_session(
        self, actor: Actor, password: str, place: Place
    ) -> tuple[User, LoginAttempt]:
        """Verify a password that is entered again in an active session, which has separate counters."""

        async def work(tx: Transaction, user: User, _now: datetime) -> tuple[User, LoginAttempt]:
            return user, await self.throttle.reserve_in_session(tx, user.id, actor.session_id, actor.client)

        user, attempt = await self.actors.run(actor, actor.user_id, work)
        return await self._authenticate(user, password, attempt, actor.client, place), attempt

    async def _authenticate(
        self, user: User | None, password: str, attempt: LoginAttempt, client: Client, place: Place
    ) -> User:
        """Return the user if the account is enabled and the password matches, else raise InvalidCredentials.

        An unknown user, a user without a password, a disabled user and a wrong password all cost the same
        number of hashes and get the same response (ASVS 6.3.8). This is why the password of a disabled user
        is never verified: the right one could cost fewer hashes.
        """
        hashed = user.password_hash if user and user.disabled_at is None else None
        right, upgraded = await self.passwords.verify(password, hashed, place)
        if user is None or hashed is None or not right:
            await self.throttle.failed(attempt, client)
            raise InvalidCredentials
        if upgraded is not None:
            await self._upgrade(user, hashed, upgraded)
        return user

    async def _upgrade(self, user: User, verified: str, upgraded: str) -> None:
        await self.store.run(lambda tx: tx.users.upgrade_hash(user.id, verified, upgraded))

    def _with_device_token(self, tokens: Tokens, device: Device) -> Tokens:
        """Add the device token, which identifies this device as known at the user's next login."""
        return replace(tokens, device_token=self.device_tokens.issue(tokens.user.id, device.token))

    async def _reserve(self, username: str, device: Device, place: Place) -> tuple[User | None, LoginAttempt]:
        """Find the user and reserve the attempt in a transaction that is durable before the hash is computed.

        If the pool has no room for the user, nothing is counted, because the error rolls the transaction
        back.
        """
        key = identifiers.lookup_key(username)

        async def work(tx: Transaction) -> tuple[User | None, LoginAttempt]:
            found = await tx.users.by_name(key) if key else None
            user_id, typed = found.id if found else None, key or username
            attempt = await self.throttle.reserve_login(tx, user_id, typed, device.token, device.client)
            place.assign(user_id or typed)
            return found, attempt

        return await self.store.run(work)

    async def _get(self, user_id: UUID) -> User:
        async with self.store.read() as tx:
            user = await tx.users.get(user_id)
        if user is None:
            raise InvalidCredentials
        return user


def _unless_changed(tokens: Tokens | None) -> Tokens:
    """Return the tokens, or raise InvalidCredentials if the password was changed after it was verified."""
    if tokens is None:
        raise InvalidCredentials
    return tokens
