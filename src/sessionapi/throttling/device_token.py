"""Device token: `dt_` + base64url(version ‖ user ‖ device ‖ HMAC-SHA256), of 1, 16, 16 and 32 bytes.

It proves that this user has logged in on this device before, so that strangers who guess passwords cannot
lock the owner out there (OWASP, device cookies). It grants no access, replaces no password check, and is
invalid for any other user.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from struct import Struct
from uuid import UUID

from sessionapi import ids

PREFIX = "dt_"
VERSION = 1
_FIELDS = Struct(">B16s16s")
_MAC_SIZE = 32
_TEXT_SIZE = len(PREFIX) + 87
"""65 bytes are 87 base64url characters without padding."""


class DeviceTokens:
    """Issuer and reader of device tokens. `keys` are derived from the current and accepted server secrets."""

    def __init__(self, keys: Sequence[bytes], new_secret: Callable[[], bytes] = ids.new_secret) -> None:
        self._keys = keys
        self._new_secret = new_secret

    def read(self, text: str | None, user_id: UUID) -> bytes | None:
        """Return the device of a token, or None if the token was not made by us for this user."""
        raw = _decode(text or "")
        if raw is None:
            return None
        fields, mac = raw[: _FIELDS.size], raw[_FIELDS.size :]
        if not any(hmac.compare_digest(_mac(key, fields), mac) for key in self._keys):
            return None
        version, owner, device = _FIELDS.unpack(fields)
        return device if (version, owner) == (VERSION, user_id.bytes) else None

    def issue(self, user_id: UUID, known: str | None) -> str:
        """Return the token of a user's device: the same device if a valid token is given, else a new one."""
        device = self.read(known, user_id) or self._new_secret()
        fields = _FIELDS.pack(VERSION, user_id.bytes, device)
        return PREFIX + _encode(fields + _mac(self._keys[0], fields))


def _decode(text: str) -> bytes | None:
    if len(text) != _TEXT_SIZE or not text.startswith(PREFIX) or not text.isascii():
        return None
    encoded = text[len(PREFIX) :]
    try:
        raw = urlsafe_b64decode(encoded + "=")
    except ValueError:
        return None
    # The decoder skips invalid characters, so compare: only canonical text encodes to itself again.
    return raw if _encode(raw) == encoded else None


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(key: bytes, fields: bytes) -> bytes:
    return hmac.digest(key, fields, "sha256")
