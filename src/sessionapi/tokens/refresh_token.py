"""The refresh token: `sr_` + base64url(version ‖ user ‖ session ‖ generation ‖ secret ‖ HMAC-SHA256).

The fields have 1, 16, 16, 6, 16 and 32 bytes: 87 together, a multiple of three, so that the text has no
padding and exactly one spelling. The session secret stays the same through rotations, so the successor
follows from the token itself: whoever repeats a rotation is given the very same text again. The HMAC lets a
forged token be refused without a query; the secret, of which the database keeps only a SHA-256, is what
neither a stolen database nor a stolen server secret can make up.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from uuid import UUID

PREFIX = "sr_"
VERSION = 1
_FIELDS = Struct(">B16s16s6s16s")
_MAC_SIZE = 32
_TEXT_SIZE = len(PREFIX) + (_FIELDS.size + _MAC_SIZE) * 4 // 3


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a refresh token says. `generation` counts the rotations of its session, from 0."""

    user_id: UUID
    session_id: UUID
    generation: int
    secret: bytes = field(repr=False)
    text: str | None = field(default=None, repr=False, compare=False)
    """What was read, if it was made under the present key: then it need not be made again."""

    @property
    def secret_digest(self) -> bytes:
        """The SHA-256 that the session's row keeps of the secret."""
        return digest(self.secret)


def digest(secret: bytes) -> bytes:
    """Return SHA-256 of a random secret; a slow hash would protect only what can be guessed."""
    return hashlib.sha256(secret).digest()


def mint(token: RefreshToken, key: bytes) -> str:
    """Return the text of a token under the present key."""
    fields = _FIELDS.pack(
        VERSION,
        token.user_id.bytes,
        token.session_id.bytes,
        token.generation.to_bytes(6, "big"),
        token.secret,
    )
    return PREFIX + urlsafe_b64encode(fields + _mac(key, fields)).decode()


def match(text: str, keys: Sequence[bytes]) -> RefreshToken | None:
    """Return what a text says if one of the keys made it, else None; no query is needed to know.

    `keys` are those derived from the present and the accepted server secrets, so that a change of the
    server secret logs nobody out.
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
    # The decoder skips letters it doesn't know: only what encodes to the same text again is canonical.
    return raw if urlsafe_b64encode(raw) == encoded else None


def _mac(key: bytes, fields: bytes) -> bytes:
    return hmac.digest(key, fields, "sha256")
