"""Ids and random secrets. Ids are UUIDv7 inside the service and TypeIDs (`user_...`) in its API.

Ids are public names, not secrets: an id alone gives access to nothing. No other module uses `secrets`.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import uuid_utils
import uuid_utils.compat
from typeid import TypeID, base32
from typeid.errors import TypeIDException

Kind = Literal["user", "sess", "key", "event"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562). It is unique and roughly ordered by time, so indexes grow at one end."""
    return uuid_utils.compat.uuid7()


def new_request_id() -> str:
    """Return the 32 hexadecimal digits of a new UUIDv7. The library's own type takes a third of the time."""
    return uuid_utils.uuid7().hex


def new_id_after(last: UUID) -> UUID:
    """Return a UUIDv7 of the millisecond after that of `last`, so that it sorts after `last`."""
    random = secrets.randbits(74)
    return _version_7(_milliseconds(last) + 1, random)


def last_id_at(time: datetime) -> UUID:
    """Return the greatest UUIDv7 of the millisecond of `time`."""
    return _version_7((time - _EPOCH) // timedelta(milliseconds=1), 2**74 - 1)


def last_id_before(time: datetime) -> UUID:
    """Return the greatest UUIDv7 of the millisecond before that of `time`."""
    return last_id_at(time - timedelta(milliseconds=1))


def last_id_of_next_millisecond(last: UUID) -> UUID:
    """Return the greatest UUIDv7 of the millisecond after that of `last`."""
    return _version_7(_milliseconds(last) + 1, 2**74 - 1)


def _milliseconds(value: UUID) -> int:
    """Return the first 48 bits of a UUIDv7: milliseconds since 1970."""
    return value.int >> 80


def _version_7(milliseconds: int, rest: int) -> UUID:
    """Return a UUIDv7 (RFC 9562, 5.7): 48 bits of time, the version, 12 bits, the variant, 62 bits."""
    high, low = divmod(rest, 2**62)
    return UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low)


def new_secret(size: int = 16) -> bytes:
    """Return `size` random bytes. The default of 16 is the 128 bits that ASVS 7.2.3 requires."""
    return secrets.token_bytes(size)


def digest(secret: bytes) -> bytes:
    """Return the SHA-256 of a random secret. A slow hash would only help with secrets that can be guessed."""
    return hashlib.sha256(secret).digest()


def public(kind: Kind, value: UUID) -> str:
    """Return the public form of an id, for example `sess_01h45ytscbebyvny4gc8cr8ma2`."""
    return f"{kind}_{base32.encode(value.bytes)}"


def parse(kind: Kind, text: str) -> UUID | None:
    """Return the id of a public form, or None if the text is not a valid id of this kind.

    Only the canonical text is accepted, so that an id has one spelling in logs, caches and lists.
    """
    try:
        typeid = TypeID.from_string(text)
    except (TypeIDException, ValueError):
        return None
    if typeid.prefix != kind or str(typeid) != text:
        return None
    return UUID(bytes=typeid.uuid.bytes)
