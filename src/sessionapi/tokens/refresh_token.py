"""Refresh token format: `sr_` + base64url(version ‖ user ‖ session ‖ generation ‖ secret ‖ HMAC-SHA256).

The fields have 1, 16, 16, 6, 16 and 32 bytes. The sum, 87, is a multiple of three, so the text has no padding
and exactly one encoding. The session secret stays the same through rotations, so the successor of a token can
be computed from the token itself: a client that repeats a rotation receives the same successor again. The
HMAC allows a forged token to be refused without a query. The secret, of which the database stores only a
SHA-256, cannot be derived from a stolen database or from a stolen server secret.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from uuid import UUID

from sessionapi.models import SessionKey

PREFIX = "sr_"
VERSION = 1
_FIELDS = Struct(">B16s16s6s16s")
_MAC_SIZE = 32
_TEXT_SIZE = len(PREFIX) + (_FIELDS.size + _MAC_SIZE) * 4 // 3


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Contents of a refresh token. `generation` is the number of rotations of its session, from 0."""

    user_id: UUID
    session_id: UUID
    generation: int
    secret: bytes = field(repr=False)
    text: str | None = field(default=None, repr=False, compare=False)
    """The token's text, if it was made under the current key and can be returned unchanged."""

    @property
    def key(self) -> SessionKey:
        """Key of the token's session."""
        return self.user_id, self.session_id

    @property
    def secret_digest(self) -> bytes:
        """SHA-256 of the secret, as stored in the session's row."""
        return digest(self.secret)


def digest(secret: bytes) -> bytes:
    """Return the SHA-256 of a random secret; a slow hash would only help with secrets that can be guessed."""
    return hashlib.sha256(secret).digest()


def mint(token: RefreshToken, key: bytes) -> str:
    """Return the text of a token, authenticated with the current key."""
    fields = _FIELDS.pack(
        VERSION,
        token.user_id.bytes,
        token.session_id.bytes,
        token.generation.to_bytes(6, "big"),
        token.secret,
    )
    return PREFIX + urlsafe_b64encode(fields + _mac(key, fields)).decode()


def match(text: str, keys: Sequence[bytes]) -> RefreshToken | None:
    """Return the contents of a token if one of the keys made it, else None. This needs no query.

    `keys` are derived from the current and the accepted server secrets, so that a change of the server secret
    logs no user out.
    """
    raw = _decode(text)
    if raw is None:
        return None
    fields, mac = raw[: _FIELDS.size], raw[_FIELDS.size :]
    made_by = next((key for key in keys if hmac.compare_digest(_mac(key, fields), mac)), None)
    if made_by is None:
        return None
    version, user_id, session_id, generation, secret = _FIELDS.unpack(fields)
    if version != VERSION:
        return None
    number = int.from_bytes(generation, "big")
    known = text if made_by == keys[0] else None
    return RefreshToken(UUID(bytes=user_id), UUID(bytes=session_id), number, secret, known)


def _decode(text: str) -> bytes | None:
    if len(text) != _TEXT_SIZE or not text.startswith(PREFIX) or not text.isascii():
        return None
    encoded = text[len(PREFIX) :].encode()
    try:
        raw = urlsafe_b64decode(encoded)
    except ValueError:
        return None
    # The decoder skips invalid characters, so compare: only canonical text encodes to itself again.
    return raw if urlsafe_b64encode(raw) == encoded else None


def _mac(key: bytes, fields: bytes) -> bytes:
    return hmac.digest(key, fields, "sha256")
