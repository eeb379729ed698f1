"""Device token: `dt_` + base64url(version ‖ user ‖ device ‖ HMAC-SHA256), of 1, 16, 16 and 32 bytes.

It proves that this user has logged in on this device before, so that strangers who guess passwords cannot
lock the owner out there (OWASP, device cookies). It grants no access, replaces no password check, and is
invalid for any other user.
"""

from collections.abc import Sequence
from uuid import UUID

from sessionapi import ids
from sessionapi.tokens.signed_tokens import TokenFormat

_FORMAT = TokenFormat("dt_", 1, "16s16s")


class DeviceTokens:
    """Issuer and reader of device tokens. `keys` are derived from the current and accepted server secrets."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def read(self, text: str | None, user_id: UUID) -> bytes | None:
        """Return the device of a token, or None if the token was not made by us for this user."""
        token = _FORMAT.read(text or "", self._keys)
        if token is None:
            return None
        _, (owner, device) = token
        return bytes(device) if owner == user_id.bytes else None

    def issue(self, user_id: UUID, known: str | None) -> str:
        """Return the token of a user's device: the same device if a valid token is given, else a new one."""
        device = self.read(known, user_id) or ids.new_secret()
        return _FORMAT.sign(self._keys[0], user_id.bytes, device)
