"""Names and randomness: UUIDv7 inside, TypeID text (`user_...`) outside, and the only use of `secrets`.

Ids are names, never secrets: whoever knows one has learnt nothing that opens anything.
"""

import secrets
from typing import Literal
from uuid import UUID

import uuid_utils.compat
from typeid import TypeID, base32
from typeid.errors import TypeIDException

Kind = Literal["user", "sess", "key", "event"]


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): unique, and roughly ordered by time, so that indexes grow at one end."""
    return uuid_utils.compat.uuid7()


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
