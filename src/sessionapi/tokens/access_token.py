"""Access tokens (RFC 9068, without `client_id`): signing, and the only function that verifies them.

PyJWT provides the algorithms. Its time checks read the system clock, so the claims are checked here against
the time that is passed in. The rules of RFC 8725 hold by construction. The key is chosen by `kid` from a ring
that the caller trusts, each key has exactly one algorithm, and no other header parameter is used or allowed.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic_core import to_json

from sessionapi.errors import ExpiredToken, InvalidToken, UnknownKey
from sessionapi.models import VerificationKey

TYPE = "at+jwt"
LONGEST_TTL = 300
"""Maximum lifetime in seconds. A token that was issued for longer is refused (design 3)."""
IAT_LEEWAY = 5
"""Seconds that `iat` may be in the future, even with a smaller leeway, because the clocks of two hosts differ
(design 4.4 allows 2 s)."""
RESERVED_CLAIMS = frozenset(
    {
        "iss",
        "aud",
        "sub",
        "sid",
        "iat",
        "exp",
        "nbf",
        "jti",
        "auth_time",
        "amr",
        "roles",
        "client_id",
        "scope",
        "cnf",
    }
)
"""Claims that a user's own `claims` cannot contain, because they would be statements in our name."""
_HEADER_NAMES = frozenset({"alg", "kid", "typ"})


@dataclass(frozen=True, slots=True)
class TokenExpectations:
    """Conditions for accepting a token.

    `leeway` is in seconds: 0 in this service, and 5 by default in other services. A token is accepted for
    that long after `exp`. Before `iat` it is accepted for that long or for IAT_LEEWAY, whichever is longer.
    """

    issuer: str
    audience: str
    leeway: int = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims of a verified token. Times are seconds since 1970 (NumericDate); ids are TypeID text."""

    user_id: str
    session_id: str
    issued_at: int
    expires_at: int
    token_id: str
    auth_time: int
    amr: tuple[str, ...]
    roles: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def sign(claims: Mapping[str, Any], *, kid: str, algorithm: str, private_key: Any) -> str:
    """Return the compact form of a token with these claims (RFC 7515)."""
    signed = _header(kid, algorithm) + b"." + _encode(to_json(claims))
    return (signed + b"." + _encode(_SIGN[algorithm](signed, private_key))).decode()


def longest(claims: Mapping[str, Any]) -> int:
    """Return the size in bytes of a token with these claims and our longest header and signature."""
    header = _header(f"key_{'0' * 26}", "RS256")
    return len(header) + 1 + len(_encode(to_json(claims))) + 1 + len(_encode(bytes(_RSA_SIGNATURE)))


def verify(
    token: str,
    find_key: Callable[[str], VerificationKey | None],
    rules: TokenExpectations,
    now: datetime,
    *,
    expired_ok: bool = False,
) -> Claims:
    """Return the claims of a token that is genuine, meant for us and not expired at `now`.

    `find_key` maps a `kid` to a key or None. Raises ExpiredToken if the token has expired but is otherwise
    valid, UnknownKey if its key is not in the ring, and InvalidToken for anything else. The detail is short,
    because more would only help a forger. `expired_ok` is for logging out with a token that has expired.
    """
    header, payload, signature = _split(token)
    kid, algorithm = _read_header(header)
    key = find_key(kid)
    if key is None:
        raise UnknownKey(kid)
    if key.algorithm != algorithm:
        raise InvalidToken("The token was signed with an unknown key. Get a new one with POST /refresh.")
    signed = f"{header}.{payload}".encode()
    if not jwt.get_algorithm_by_name(key.algorithm).verify(signed, key.public_key, _decode(signature)):
        raise InvalidToken("The signature does not match.")
    claims = _judge(_load_object(_decode(payload)), rules, now.timestamp())
    if not expired_ok:
        refuse_expired(claims, rules, now.timestamp())
    return claims


def key_id(token: str) -> str:
    """Return the `kid` of a token without verifying it; InvalidToken if it cannot be one of ours."""
    return _read_header(_split(token)[0])[0]


def refuse_expired(claims: Claims, rules: TokenExpectations, now: float) -> None:
    """Raise ExpiredToken from `exp` on (plus the leeway); `now` is in seconds since 1970."""
    if claims.expires_at + rules.leeway <= now:
        raise ExpiredToken


def is_ahead(claims: Claims, rules: TokenExpectations, now: float) -> bool:
    """Return whether a token was issued further in the future than clocks may differ.

    If our clock is slow, `iat` and `exp` are off by the same time, so a larger leeway applies to both.
    """
    return claims.issued_at > now + max(IAT_LEEWAY, rules.leeway)


@lru_cache(maxsize=64)
def _header(kid: str, algorithm: str) -> bytes:
    return _encode(to_json({"alg": algorithm, "kid": kid, "typ": TYPE}))


def _encode(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _sign_es256(signed: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return r and s concatenated (RFC 7518, 3.4); PyJWT's own function takes a fifth longer (measured)."""
    r, s = decode_dss_signature(key.sign(signed, _ECDSA))
    return r.to_bytes(_P256_SIZE, "big") + s.to_bytes(_P256_SIZE, "big")


_ECDSA = ec.ECDSA(SHA256())
_P256_SIZE = 32
_RSA_SIGNATURE = 256
"""Bytes of a signature by a 2048-bit key, which is what keyring.py generates."""
_SIGN: Mapping[str, Callable[[bytes, Any], bytes]] = {
    "ES256": _sign_es256,
    "RS256": jwt.get_algorithm_by_name("RS256").sign,
}


def _split(token: str) -> tuple[str, str, str]:
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or not token.isascii():
        raise InvalidToken("This is not a JWT.")
    return parts[0], parts[1], parts[2]


@lru_cache(maxsize=64)  # the tokens of one ring have only a handful of different headers
def _read_header(segment: str) -> tuple[str, str]:
    """Return (kid, alg) of a header that has no other field than its type."""
    header = _load_object(_decode(segment))
    kid, algorithm = header.get("kid"), header.get("alg")
    if header.keys() != _HEADER_NAMES or not isinstance(kid, str) or not isinstance(algorithm, str):
        raise InvalidToken("The header must have exactly the fields alg, kid and typ.")
    if header["typ"] != TYPE:
        raise InvalidToken(f"The token must have the type {TYPE}.")
    return kid, algorithm


def _judge(claims: dict[str, Any], rules: TokenExpectations, now: float) -> Claims:
    result = _typed(claims)
    if claims.get("iss") != rules.issuer:
        raise InvalidToken(f"The token has the wrong issuer; this service trusts {rules.issuer}.")
    audiences = claims.get("aud")
    if audiences != rules.audience and not (isinstance(audiences, list) and rules.audience in audiences):
        raise InvalidToken(f"The token has the wrong audience; this service expects {rules.audience}.")
    if is_ahead(result, rules, now):
        raise InvalidToken("The token was issued in the future.")
    if result.expires_at - result.issued_at > LONGEST_TTL:
        raise InvalidToken(f"The token has a lifetime of more than {LONGEST_TTL} s, the maximum.")
    return result


def _typed(claims: dict[str, Any]) -> Claims:
    """Return the claims that every token of ours has, after checking their types."""
    try:
        return Claims(
            user_id=_text(claims["sub"]),
            session_id=_text(claims["sid"]),
            issued_at=_seconds(claims["iat"]),
            expires_at=_seconds(claims["exp"]),
            token_id=_text(claims["jti"]),
            auth_time=_seconds(claims["auth_time"]),
            amr=_texts(claims["amr"]),
            roles=_texts(claims["roles"]),
            extra=MappingProxyType(
                {name: value for name, value in claims.items() if name not in RESERVED_CLAIMS}
            ),
        )
    except (KeyError, TypeError):
        raise InvalidToken("A required claim is missing or has the wrong type.") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _seconds(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(item) for item in value)


def _decode(segment: str) -> bytes:
    """Decode base64url without padding. Only the canonical encoding of the bytes is accepted."""
    encoded = segment.encode()
    try:
        raw = urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except ValueError:
        raise InvalidToken("This is not a JWT.") from None
    if _encode(raw) != encoded:
        raise InvalidToken("This is not a JWT.")
    return raw


def _load_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)  # loads also takes UTF-16 bytes
    except (ValueError, RecursionError):
        raise InvalidToken("This is not a JWT.") from None
    if not isinstance(value, dict):
        raise InvalidToken("This is not a JWT.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a duplicate field, because two parsers may choose different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate field")
    return found
