"""Server secret: the source of every key that we derive for our own MACs and encryption."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sessionapi.errors import StartupError

MIN_BYTES = 32


class ServerSecret:
    """The current secret and the accepted ones. It returns derived keys, never the secrets themselves.

    White space around a secret is not part of it, whether it comes from the environment, `.env` or a file, so
    `cat`, editors and mounted files do not change it. White space inside a secret counts. Earlier versions
    used the value of the environment unchanged. That form stays accepted, so that data encrypted with it can
    still be decrypted.
    """

    def __init__(
        self, current: bytes, accepted: Sequence[bytes] = (), source: str = "SESSIONAPI_SECRET"
    ) -> None:
        """Raise StartupError for a weak secret; `source` names where the current one comes from."""
        stripped = [value.strip() for value in (current, *accepted)]
        for place, value in enumerate(stripped):
            _refuse_weak("SESSIONAPI_SECRET_ACCEPTED" if place else source, value)
        self._all = tuple(dict.fromkeys([*stripped, current]))

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """Return one 32-byte key for each secret, the current one first (HKDF-SHA256, RFC 5869).

        Keys for different purposes are independent, so a leaked key reveals nothing about the others.
        """
        return tuple(_hkdf(secret, purpose) for secret in self._all)


def read_or_make(path: Path, fresh: str) -> bytes:
    """Return the secret in a file. The first start writes `fresh` there, readable by the owner alone."""
    if not path.exists():
        _write_once(path, fresh + "\n")
    return path.read_bytes().strip()


def _write_once(path: Path, text: str) -> None:
    """Write a file atomically, and never replace one that another process has just made."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _refuse_weak(source: str, secret: bytes) -> None:
    if len(secret) < MIN_BYTES:
        raise StartupError(f"{source} has {len(secret)} bytes; it needs at least {MIN_BYTES} random ones")
    if len(set(secret)) == 1:
        raise StartupError(f"{source} repeats one byte; make a random one")


def _hkdf(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=f"sessionapi {purpose} v1".encode()).derive(secret)
