"""Password hashing, off the event loop in the thread pool of `hash_pool.py`.

Argon2id releases the GIL, so the threads use all cores. Their low priority keeps other requests fast while
many people log in (benchmarks/results.md has the effect on those requests). Such a thread must not hold the
GIL for long, because it may have to wait for its core while all other threads wait for the GIL. So a hash in
our format is verified by a single call, without passlib. `legacy_hashes.py` reads the hashes of other
systems.
"""

import functools
from collections.abc import Hashable
from contextlib import AbstractContextManager

import structlog
from argon2.exceptions import VerificationError
from argon2.low_level import Type, verify_secret
from passlib.context import CryptContext

from sessionapi import identifiers, ids
from sessionapi.errors import ValidationFailed
from sessionapi.metrics import Metrics
from sessionapi.users import legacy_hashes
from sessionapi.users.hash_pool import HashPool, Place

log = structlog.get_logger()

MAX_HASH = 512
"""Longest hash, in characters, that the database stores."""


class Passwords:
    """Hashes and verifies passwords. The caller takes a place in the pool before it counts the attempt."""

    def __init__(self, *, memory_kib: int, time: int, threads: int, metrics: Metrics) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=time,
            argon2__parallelism=1,
        )
        self.pool = HashPool(threads, metrics)
        # Verified for an unknown user, so that a wrong username costs as much as a wrong password.
        self._dummy = _hash_of_nothing(self._context)
        self._parameters = self._dummy.rsplit("$", 2)[0] + "$"

    def place(self, lane: Hashable) -> AbstractContextManager[Place]:
        """Take a place in one lane of the pool's queue, or raise Overloaded at once."""
        return self.pool.place(lane)

    async def hash(self, password: str, place: Place) -> str:
        """Return an Argon2id hash of the password, exactly as received."""
        return await place.run(lambda: str(self._context.hash(password)))

    async def verify(self, password: str, hashed: str | None, place: Place) -> tuple[bool, str | None]:
        """Return (matches, new hash if the stored one has an old scheme or weaker parameters).

        A password is verified as received, then in NFC, then in NFD (NIST SP 800-63B-4), because another
        system may encode accented characters differently. Each form that differs costs one hash. Without a
        stored hash the same number of hashes is computed, and the result is (False, None).
        """
        known = hashed or self._dummy
        verify = _verify_current if self._is_current(known) else self._verify
        for spelling in identifiers.spellings(password):
            right, upgraded = await place.run(functools.partial(verify, spelling, known))
            if right and hashed is not None:
                return True, upgraded
        return False, None

    def read_import(self, hashed: str) -> str:
        """Return the text to store for a hash of another system; ValidationFailed if it is unsupported."""
        try:
            stored = legacy_hashes.read(hashed).text
        except legacy_hashes.UnreadableHash as unreadable:
            raise ValidationFailed(str(unreadable)) from None
        if len(stored) > MAX_HASH:
            raise ValidationFailed(f"The hash has {len(stored)} characters; the maximum is {MAX_HASH}.")
        return stored

    def close(self) -> None:
        """Wait for the hashes that are running; queued requests are cancelled."""
        self.pool.close()

    def _is_current(self, hashed: str) -> bool:
        """Return whether a hash has the scheme, the parameters and the sizes that we use now."""
        return len(hashed) == len(self._dummy) and hashed.startswith(self._parameters)

    def _verify(self, password: str, hashed: str) -> tuple[bool, str | None]:
        """Verify a hash of another system or with earlier parameters.

        The replacement is a hash of the whole password, even if the old scheme truncated it.
        """
        try:
            right = legacy_hashes.read(hashed).verify(password)
        except legacy_hashes.UnreadableHash as unreadable:
            log.warning("a stored password hash cannot be verified", reason=str(unreadable))
            return False, None
        except ValueError:  # a legacy hash that cannot take this password, for example because of a NUL
            return False, None
        return right, str(self._context.hash(password)) if right else None


def _hash_of_nothing(context: CryptContext) -> str:
    """Return a hash in our format with a random digest, made without hashing. No password matches it."""
    ours = context.handler("argon2")
    salt, digest = ids.new_secret(ours.default_salt_size), ids.new_secret(ours.checksum_size)
    return str(ours(salt=salt, checksum=digest, use_defaults=True, type="ID").to_string())


def _verify_current(password: str, hashed: str) -> tuple[bool, None]:
    try:
        return verify_secret(hashed.encode(), password.encode(), Type.ID), None
    except (VerificationError, ValueError):  # wrong, or one of the two cannot be encoded
        return False, None
