"""Access tokens (RFC 9068, without `client_id`): sign one, and the one way to verify one.

PyJWT has the algorithms; its own checks of time read the system clock, so the claims are judged here, with
the clock passed in. The rules of RFC 8725 hold by construction: the key is chosen by `kid` from a ring that
the caller trusts, each key has exactly one algorithm, and no other header parameter is looked at or allowed.
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
"""Seconds. Nothing accepts a token that was made for longer (design 3)."""
IAT_LEEWAY = 5
"""Seconds that `iat` may always lie ahead: the clocks of two hosts differ (design 4.4 allows them 2)."""
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
"""Claims that a user's own `claims` can't hold: they would say something in our name."""
_HEADER_NAMES = frozenset({"alg", "kid", "typ"})


@dataclass(frozen=True, slots=True)
class TokenExpectations:
    """Conditions for a token to be accepted.

    `leeway` is in seconds, 0 here and 5 in other services. A token is accepted that long after `exp`. Before
    `iat` it is accepted that long, or IAT_LEEWAY if that is more.
    """

    issuer: str
    audience: str
    leeway: int = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times are seconds since 1970 (NumericDate); ids are TypeID text."""

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
    """Return the bytes of a token with these claims and the longest header and signature that we make."""
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
    """Return the claims of a token that is genuine, meant for us and alive at `now`.

    `find_key` maps a `kid` to a key or None. Raises ExpiredToken if nothing but the time is wrong, UnknownKey
    if the key isn't there, else InvalidToken, which doesn't say more than its detail: it would only help a
    forger. `expired_ok` is for logging out with a token that has died meanwhile.
    """
    header, payload, signature = _split(token)
    kid, algorithm = _read_header(header)
    key = find_key(kid)
    if key is None:
        raise UnknownKey(kid)
    if key.algorithm != algorithm:
        raise InvalidToken("The token names a key that does not verify here.")
    signed = f"{header}.{payload}".encode()
    if not jwt.get_algorithm_by_name(key.algorithm).verify(signed, key.public_key, _decode(signature)):
        raise InvalidToken("The signature does not match.")
    claims = _judge(_load_object(_decode(payload)), rules, now.timestamp())
    if not expired_ok:
        refuse_expired(claims, rules, now.timestamp())
    return claims


def key_id(token: str) -> str:
    """Return the `kid` that a token names, verified or not; InvalidToken if it can't be one of ours."""
    return _read_header(_split(token)[0])[0]


def refuse_expired(claims: Claims, rules: TokenExpectations, now: float) -> None:
    """Raise ExpiredToken at `exp` and after (plus the leeway); `now` is in seconds since 1970."""
    if claims.expires_at + rules.leeway <= now:
        raise ExpiredToken


def is_ahead(claims: Claims, rules: TokenExpectations, now: float) -> bool:
    """Return whether a token was issued further in the future than clocks may differ.

    A clock that is behind sees `iat` too late by as much as `exp`, so a larger leeway holds for both.
    """
    return claims.issued_at > now + max(IAT_LEEWAY, rules.leeway)


@lru_cache(maxsize=64)
def _header(kid: str, algorithm: str) -> bytes:
    return _encode(to_json({"alg": algorithm, "kid": kid, "typ": TYPE}))


def _encode(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _sign_es256(signed: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return r and s side by side (RFC 7518, 3.4); PyJWT's own takes a fifth longer (measured)."""
    r, s = decode_dss_signature(key.sign(signed, _ECDSA))
    return r.to_bytes(_P256_SIZE, "big") + s.to_bytes(_P256_SIZE, "big")


_ECDSA = ec.ECDSA(SHA256())
_P256_SIZE = 32
_RSA_SIGNATURE = 256
"""Bytes, of the keys of 2048 bits that keyring.py makes."""
_SIGN: Mapping[str, Callable[[bytes, Any], bytes]] = {
    "ES256": _sign_es256,
    "RS256": jwt.get_algorithm_by_name("RS256").sign,
}


def _split(token: str) -> tuple[str, str, str]:
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or not token.isascii():
        raise InvalidToken("This is not a JWT.")
    return parts[0], parts[1], parts[2]


@lru_cache(maxsize=64)  # the headers of one ring's tokens are a handful of texts
def _read_header(segment: str) -> tuple[str, str]:
    """Return (kid, alg) of a header that says nothing else but its type."""
    header = _load_object(_decode(segment))
    kid, algorithm = header.get("kid"), header.get("alg")
    if header.keys() != _HEADER_NAMES or not isinstance(kid, str) or not isinstance(algorithm, str):
        raise InvalidToken("The header must have alg, kid and typ, and nothing else.")
    if header["typ"] != TYPE:
        raise InvalidToken(f"The token is not of the type {TYPE}.")
    return kid, algorithm


def _judge(claims: dict[str, Any], rules: TokenExpectations, now: float) -> Claims:
    result = _typed(claims)
    if claims.get("iss") != rules.issuer:
        raise InvalidToken(f"The token is not from {rules.issuer}, the issuer that is trusted here.")
    audiences = claims.get("aud")
    if audiences != rules.audience and not (isinstance(audiences, list) and rules.audience in audiences):
        raise InvalidToken(f"The token is not for {rules.audience}, the audience that is meant here.")
    if is_ahead(result, rules, now):
        raise InvalidToken("The token was issued in the future.")
    if result.expires_at - result.issued_at > LONGEST_TTL:
        raise InvalidToken(f"The token was made to live for more than {LONGEST_TTL} s.")
    return result


def _typed(claims: dict[str, Any]) -> Claims:
    """Return the claims that every token of ours has, each of its type."""
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
        raise InvalidToken("A required claim is missing or of the wrong type.") from None


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
    """Decode base64url without padding; a second spelling of the same bytes is refused."""
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
        value = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)  # bytes could be UTF-16 too
    except (ValueError, RecursionError):
        raise InvalidToken("This is not a JWT.") from None
    if not isinstance(value, dict):
        raise InvalidToken("This is not a JWT.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two parsers may choose differently between two members of one name: refuse both."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found
