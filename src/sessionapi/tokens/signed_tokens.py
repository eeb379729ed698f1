"""Our own signed tokens: a prefix and base64url(version ‖ fields ‖ HMAC-SHA256), without padding.

The HMAC allows a forged token to be refused without a query. The keys are derived from the current and the
accepted server secrets, the current one first, so that a change of the server secret invalidates no token.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from struct import Struct
from typing import Any

_MAC_SIZE = 32


class TokenFormat:
    """Format of one kind of token: prefix, version (0 to 255), and the fields as a `struct` format."""

    def __init__(self, prefix: str, version: int, fields: str) -> None:
        self._prefix = prefix
        self._version = version
        self._fields = Struct(f">B{fields}")
        self._text_size = len(prefix) + len(_encode(bytes(self._fields.size + _MAC_SIZE)))

    def sign(self, key: bytes, *values: Any) -> str:
        """Return the token with these values in its fields."""
        fields = self._fields.pack(self._version, *values)
        return self._prefix + _encode(fields + _mac(key, fields))

    def read(self, text: str, keys: Sequence[bytes]) -> tuple[bytes, tuple[Any, ...]] | None:
        """Return the key that signed a token, and its values, or None if it is not valid under any key."""
        raw = self._decode(text)
        if raw is None:
            return None
        fields, mac = raw[: self._fields.size], raw[self._fields.size :]
        signer = next((key for key in keys if hmac.compare_digest(_mac(key, fields), mac)), None)
        version, *values = self._fields.unpack(fields)
        return None if signer is None or version != self._version else (signer, tuple(values))

    def _decode(self, text: str) -> bytes | None:
        if len(text) != self._text_size or not text.startswith(self._prefix) or not text.isascii():
            return None
        encoded = text[len(self._prefix) :]
        try:
            raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except ValueError:
            return None
        # The decoder skips invalid characters, so compare: only canonical text encodes to itself again.
        return raw if _encode(raw) == encoded else None


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(key: bytes, fields: bytes) -> bytes:
    return hmac.digest(key, fields, "sha256")
