"""What a password opens: signing up, logging in, confirming it again, changing it."""

from dataclasses import replace
from uuid import UUID

from sessionapi import audit, identifiers, ids
from sessionapi.clock import Clock
from sessionapi.device_token import DeviceTokens
from sessionapi.errors import InvalidCredentials, SignupClosed, UsernameTaken
from sessionapi.hash_pool import Place
from sessionapi.issuer import Tokens
from sessionapi.limits import network
from sessionapi.model import Client, User
from sessionapi.password_rules import PasswordRules
from sessionapi.passwords import Passwords
from sessionapi.sessions import Device, Sessions
from sessionapi.storage import Store
from sessionapi.throttle import Throttle, Try


class Users:
    """Accounts in one store, as far as passwords go."""

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        rules: PasswordRules,
        throttle: Throttle,
        device_tokens: DeviceTokens,
        sessions: Sessions,
        clock: Clock,
        *,
        signup_open: bool,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._rules = rules
        self._throttle = throttle
        self._device_tokens = device_tokens
        self._sessions = sessions
        self._clock = clock
        self._signup_open = signup_open

    async def sign_up(self, username: str, password: str, email: str | None, device: Device) -> Tokens:
        """Create a user and start the first session, both or neither."""
        if not self._signup_open:
            raise SignupClosed
        name, key = identifiers.parse_name(username)
        self._rules.refuse_guessable(password, name, email)
        self._throttle.count_signup(device.client)  # before anybody else is asked
        await self._rules.refuse_weak(password, name, email)
        with self._passwords.place(network(device.client.ip)) as place:
            place.assign(key)
            hashed = await self._passwords.hash(password, place)
        now = self._clock()
        user = User(ids.new_id(), name, email, hashed, 0, (), {}, {}, now)
        async with self._store.begin() as tx:
            if await tx.insert_user(user, key):
                await tx.record(audit.event("user.created", now, user_id=user.id, client=device.client))
                return self._known(await self._sessions.start(tx, user, device, now), device)
        raise UsernameTaken

    async def log_in(self, username: str, password: str, device: Device) -> Tokens:
        """Verify the password, then start a session, unless the credentials changed in between.

        What refuses a try comes in the order of what it costs: a count in memory, the length of the queue,
        a reservation in the database, a hash.
        """
        self._throttle.count_login(device.client)
        with self._passwords.place(network(device.client.ip)) as place:
            found, tried = await self._reserve(username, device, place)
            user = await self._authenticate(found, password, tried, device.client, place)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                await self._throttle.succeeded(tx, tried)
                return self._known(await self._sessions.start(tx, user, device, now), device)
        raise InvalidCredentials

    async def reauthenticate(self, user_id: UUID, session_id: UUID, password: str, client: Client) -> Tokens:
        """Confirm the password in a living session, which moves its `auth_time`."""
        user = await self._get(user_id)
        with self._passwords.place(user_id) as place:
            tried = await self._verify_in_session(user, session_id, password, client, place)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                await self._throttle.succeeded(tx, tried)
                return await self._sessions.reauthenticated(tx, user, session_id, now)
        raise InvalidCredentials

    async def change_password(
        self, user_id: UUID, session_id: UUID, current: str, new: str, client: Client
    ) -> Tokens:
        """Set a new password: the other sessions end, and the present one is given a new secret.

        All in one transaction, which also asks whether the password that was verified is still the one.
        """
        user = await self._get(user_id)
        await self._rules.refuse_weak(new, user.username, user.email, "new_password")
        with self._passwords.place(user_id) as place:
            await self._verify_in_session(user, session_id, current, client, place)
            hashed = await self._passwords.hash(new, place)
        now = self._clock()
        async with self._store.begin() as tx:
            if await tx.lock_user(user.id, user.credential_version):
                await tx.renew_credentials(user.id, password_hash=hashed)
                await tx.clear_tries_of(user.id)
                await tx.record(audit.event("user.password_changed", now, user_id=user.id, client=client))
                await self._sessions.end_all(tx, user.id, "password_changed", now, client, keep=session_id)
                return await self._sessions.renew_secret(tx, user, session_id, now)
        raise InvalidCredentials

    async def _verify_in_session(
        self, user: User, session_id: UUID, password: str, client: Client, place: Place
    ) -> Try:
        """Verify a password that is sent again in an active session, which has attempts of its own."""
        async with self._store.begin() as tx:
            tried = await self._throttle.reserve_in_session(tx, user.id, session_id, client)
            place.assign(user.id)
        await self._authenticate(user, password, tried, client, place)
        return tried

    async def _authenticate(
        self, user: User | None, password: str, tried: Try, client: Client, place: Place
    ) -> User:
        """Return the enabled user whose password this is.

        An unknown user, one without a password, a disabled one and a wrong password cost one hash each and
        look alike (ASVS 6.3.8).
        """
        hashed = user.password_hash if user else None
        right, upgraded = await self._passwords.verify(password, hashed, place)
        if user is None or hashed is None or not right or user.disabled_at is not None:
            await self._throttle.failed(tried, client)
            raise InvalidCredentials
        if upgraded is not None:
            async with self._store.begin() as tx:
                await tx.upgrade_hash(user.id, verified=hashed, upgraded=upgraded)
        return user

    def _known(self, tokens: Tokens, device: Device) -> Tokens:
        """Add the token by which the user will be known on this device."""
        return replace(tokens, device_token=self._device_tokens.issue(tokens.user.id, device.token))

    async def _reserve(self, username: str, device: Device, place: Place) -> tuple[User | None, Try]:
        """Find the user of a name and reserve the try, in one transaction that is durable before the hash.

        Without room for the user nothing is counted: the refusal rolls back.
        """
        key = identifiers.lookup_key(username)
        async with self._store.begin() as tx:
            found = await tx.user_by_name(key) if key else None
            user_id, typed = found.id if found else None, key or username
            tried = await self._throttle.reserve_login(tx, user_id, typed, device.token, device.client)
            place.assign(user_id or typed)
        return found, tried

    async def _get(self, user_id: UUID) -> User:
        async with self._store.read() as tx:
            user = await tx.user(user_id)
        if user is None:
            raise InvalidCredentials
        return user
