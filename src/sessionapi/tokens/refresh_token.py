"""Refresh token format: `sr_` + base64url(version ‖ user ‖ session ‖ generation ‖ secret ‖ HMAC-SHA256).

The fields have 1, 16, 16, 6, 16 and 32 bytes. The sum, 87, is a multiple of three, so the text has no padding
and exactly one encoding. The session secret stays the same through rotations, so the successor of a token can
be computed from the token itself: a client that repeats a rotation receives the same successor again. The
secret, of which the database stores only a SHA-256, cannot be derived from a stolen database or from a stolen
server secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sessionapi import ids
from sessionapi.models import SessionKey
from sessionapi.tokens.signed_tokens import TokenFormat

_FORMAT = TokenFormat("sr_", 1, "16s16s6s16s")


@dataclass(slots=True)
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
        return ids.digest(self.secret)


def mint(token: RefreshToken, key: bytes) -> str:
    """Return the text of a token, authenticated with the current key."""
    generation = token.generation.to_bytes(6, "big")
    return _FORMAT.sign(key, token.user_id.bytes, token.session_id.bytes, generation, token.secret)


def match(text: str, keys: Sequence[bytes]) -> RefreshToken | None:
    """Return the contents of a token that one of the keys signed, else None. This needs no query."""
    token = _FORMAT.read(text, keys)
    if token is None:
        return None
    signer, (user_id, session_id, generation, secret) = token
    known = text if signer == keys[0] else None
    number = int.from_bytes(generation, "big")
    return RefreshToken(UUID(bytes=user_id), UUID(bytes=session_id), number, secret, known)
