"""Password hashes, computed off the event loop in a bounded pool of low-priority threads.

Argon2id releases the GIL, so the threads use the cores; their low priority keeps other requests fast while
many people log in (how much they feel of it is in benchmarks/results.md).
Such a thread must not hold the GIL for long: it may have to wait for its core, and everybody else for it. So
a hash of ours is verified by one call, without passlib, which knows the hashes of others.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2.exceptions import VerificationError
from argon2.low_level import Type, verify_secret
from passlib.context import CryptContext

from sessionapi import ids
from sessionapi.errors import Overloaded
from sessionapi.metrics import Metrics

_THREAD_NICENESS = 10
_QUEUE_PER_THREAD = 100
"""Hashes that may wait for a thread: about 2 s of work, beyond which an honest client has given up."""
MAX_HASH = 512
"""Characters of a hash that the database keeps."""
_LEGACY_SCHEMES = [
    "bcrypt",
    "bcrypt_sha256",
    "pbkdf2_sha256",
    "pbkdf2_sha512",
    "scrypt",
    "sha256_crypt",
    "sha512_crypt",
    "django_argon2",
    "django_bcrypt",
    "django_bcrypt_sha256",
    "django_pbkdf2_sha1",
    "django_pbkdf2_sha256",
]
_CUT_SCHEMES = frozenset({"bcrypt", "django_bcrypt"})
_BCRYPT_BYTES = 72
"""What bcrypt looks at. The library refuses longer passwords, the systems that hashes come from cut them."""

R = TypeVar("R")


class Passwords:
    """Hash and verify. At most `threads` run and 100 times as many wait; one more is `Overloaded` at once."""

    def __init__(self, *, memory_kib: int, time: int, threads: int, metrics: Metrics) -> None:
        self._context = CryptContext(
            schemes=["argon2", *_LEGACY_SCHEMES],
            deprecated=_LEGACY_SCHEMES,
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=time,
            argon2__parallelism=1,
        )
        self._metrics = metrics
        self._room = threads * (1 + _QUEUE_PER_THREAD)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hash", initializer=_lower_priority)
        # Verified for a user who doesn't exist, so that a wrong name costs what a wrong password costs.
        self._dummy = _hash_of_nothing(self._context)
        self._parameters = self._dummy.rsplit("$", 2)[0] + "$"

    async def hash(self, password: str) -> str:
        """Return an Argon2id hash of the password, exactly as received."""
        with self.place():
            return await self._run(lambda: str(self._context.hash(password)))

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Return (right, new hash if the stored one is of an old scheme or weaker parameters).

        Without a stored hash the time of one is spent and the answer is (False, None). The caller has taken
        a place, before it counted the try.
        """
        known = hashed or self._dummy
        verify = _verify_current if self._is_current(known) else self._verify
        right, upgraded = await self._run(lambda: verify(password, known))
        return (right, upgraded) if hashed is not None else (False, None)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Take a place among those who hash or wait, or raise Overloaded at once."""
        if self._room <= 0:
            raise Overloaded
        self._room -= 1
        self._metrics.hash_queue.inc()
        try:
            yield
        finally:
            self._room += 1
            self._metrics.hash_queue.dec()

    def knows(self, hashed: str) -> bool:
        """Return whether a hash of another system is whole and can be verified here."""
        handler = self._context.identify(hashed, resolve=True)
        inner = getattr(handler, "wrapped", handler)  # Django puts its own word before another's hash
        try:
            known = handler is not None and len(hashed) <= MAX_HASH
            own = hashed if inner is handler else hashed.removeprefix(handler.prefix)
            return known and inner.from_string(own).checksum is not None
        except ValueError:
            return False

    def close(self) -> None:
        """Let the hashes under way finish; what waits is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _is_current(self, hashed: str) -> bool:
        """Return whether a hash is as we make them now: the scheme, the parameters, the sizes."""
        return len(hashed) == len(self._dummy) and hashed.startswith(self._parameters)

    def _verify(self, password: str, hashed: str) -> tuple[bool, str | None]:
        try:
            if self._context.identify(hashed) in _CUT_SCHEMES:
                return self._verify_as_cut(password, hashed)
            right, upgraded = self._context.verify_and_update(password, hashed)
        except ValueError:  # a legacy hash that can't take this password (with a NUL)
            return False, None
        return bool(right), upgraded

    def _verify_as_cut(self, password: str, hashed: str) -> tuple[bool, str | None]:
        """Take what its origin took: every password with these 72 bytes. From then on it is the whole one."""
        right = self._context.verify(password.encode()[:_BCRYPT_BYTES], hashed)
        return right, self._context.hash(password) if right else None

    async def _run(self, work: Callable[[], R]) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._metrics.hashes.inc()


def _hash_of_nothing(context: CryptContext) -> str:
    """Return a hash of ours with a random digest: no password has it, and nothing was computed for it."""
    ours = context.handler("argon2")
    salt, digest = ids.new_secret(ours.default_salt_size), ids.new_secret(ours.checksum_size)
    return str(ours(salt=salt, checksum=digest, use_defaults=True, type="ID").to_string())


def _verify_current(password: str, hashed: str) -> tuple[bool, None]:
    try:
        return verify_secret(hashed.encode(), password.encode(), Type.ID), None
    except (VerificationError, ValueError):  # wrong, or one of the two is no text
        return False, None


def _lower_priority() -> None:
    # On Linux a thread has a priority of its own; elsewhere this would lower the whole process.
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _THREAD_NICENESS)
