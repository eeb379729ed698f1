"""Names and randomness: UUIDv7 inside, TypeID text (`user_...`) outside, and the only use of `secrets`.

Ids are names, never secrets: whoever knows one has learnt nothing that opens anything.
"""

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
    """Return a UUIDv7 (RFC 9562): unique, and roughly ordered by time, so that indexes grow at one end."""
    return uuid_utils.compat.uuid7()


def new_request_id() -> str:
    """Return the 32 hexadecimal digits of a new UUIDv7; the library's own type takes a third of the time."""
    return uuid_utils.uuid7().hex


def new_id_after(last: UUID) -> UUID:
    """Return a UUIDv7 of the millisecond after that of `last`, so that it sorts after it."""
    random = secrets.randbits(74)
    return _version_7(_milliseconds(last) + 1, random)


def last_id_at(time: datetime) -> UUID:
    """Return the greatest UUIDv7 of a time's millisecond."""
    return _version_7((time - _EPOCH) // timedelta(milliseconds=1), 2**74 - 1)


def last_id_before(time: datetime) -> UUID:
    """Return the greatest UUIDv7 of the millisecond before that of a time."""
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
    """Return `size` random bytes. 16 are the 128 bits that ASVS 7.2.3 asks for."""
    return secrets.token_bytes(size)


def public(kind: Kind, value: UUID) -> str:
    """Return the outside form of an id, as in `sess_01h45ytscbebyvny4gc8cr8ma2`."""
    return f"{kind}_{base32.encode(value.bytes)}"


def parse(kind: Kind, text: str) -> UUID | None:
    """Return the id behind its outside form, or None if the text is no id of this kind.

    Only the canonical text is taken, so that one id has one spelling in logs, caches and lists.
    """
    try:
        typeid = TypeID.from_string(text)
    except (TypeIDException, ValueError):
        return None
    if typeid.prefix != kind or str(typeid) != text:
        return None
    return UUID(bytes=typeid.uuid.bytes)
