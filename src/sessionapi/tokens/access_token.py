"""Access tokens (RFC 9068, without `client_id`): signing, and the only function that verifies them.

PyJWT signs, parses, and checks signature, issuer and audience. Its time checks read the system clock, so the
times are checked here against the time that is passed in. The rules of RFC 8725 hold by construction. The key
is chosen by `kid` from a ring that the caller trusts, each key has exactly one algorithm, and no other header
parameter is used or allowed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import jwt
from jwt.types import Options
from jwt.utils import base64url_decode, base64url_encode

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
_HEADER_FIELDS = {"alg", "kid", "typ"}
_NOT_A_JWT = "This is not a JWT."
_WRONG_CLAIM = "A required claim is missing or has the wrong type."
_MAX_HEADER = 256
"""Maximum length of the header segment. Ours has about 110 characters."""
_MAX_SIGNATURE = 342
"""Maximum length of the signature segment, which is that of RS256 with a 2048-bit key (keyring.py)."""
_JWS = jwt.PyJWS(algorithms=["ES256", "RS256"])


class _StrictJWT(jwt.PyJWT):
    """PyJWT with a stricter reading of the claims. PyJWT documents this method as an extension point."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        return _object(decoded["payload"])


_JWT = _StrictJWT()
_OPTIONS: Options = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""PyJWT checks issuer and audience. The times and the types of all claims are checked here."""


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


def sign(payload: bytes, *, kid: str, algorithm: str, private_key: Any) -> str:
    """Return the compact form of a token with these claims, which are JSON in UTF-8 (RFC 7515 section 7.1).

    PyJWT's `encode` builds and checks the same header again for each token, which took as long as the
    signature (measured).
    """
    signing_input = _header_segment(kid, algorithm) + b"." + base64url_encode(payload)
    signature = _JWS.get_algorithm_by_name(algorithm).sign(signing_input, private_key)
    return (signing_input + b"." + base64url_encode(signature)).decode()


def longest(payload: bytes) -> int:
    """Return the size in bytes of a token with these claims and our longest header and signature."""
    header = _header_segment(f"key_{'0' * 26}", "RS256")
    return len(header) + (4 * len(payload) + 2) // 3 + _MAX_SIGNATURE + len("..")


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
    kid = key_id(token)
    key = find_key(kid)
    if key is None:
        raise UnknownKey(kid)
    claims = _typed(_decode(token, key, rules))
    seconds = now.timestamp()
    if is_ahead(claims, rules, seconds):
        raise InvalidToken("The token was issued in the future.")
    if claims.expires_at - claims.issued_at > LONGEST_TTL:
        raise InvalidToken(f"The token has a lifetime of more than {LONGEST_TTL} s, the maximum.")
    if not expired_ok:
        refuse_expired(claims, rules, seconds)
    return claims


def key_id(token: str) -> str:
    """Return the `kid` of a token without verifying it; InvalidToken if it cannot be one of ours."""
    # PyJWT ignores base64 padding, which RFC 7515 section 2 excludes. A token has only one spelling.
    if "=" in token or not token.isascii():
        raise InvalidToken(_NOT_A_JWT)
    header, _, rest = token.partition(".")
    # PyJWT needs 0.5 ms for a segment of 8 KB, which any client can send.
    if len(header) > _MAX_HEADER or len(rest.rpartition(".")[2]) > _MAX_SIGNATURE:
        raise InvalidToken(_NOT_A_JWT)
    return _kid_of(header)


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
def _header_segment(kid: str, algorithm: str) -> bytes:
    header = {"alg": algorithm, "kid": kid, "typ": TYPE}
    return base64url_encode(json.dumps(header, separators=(",", ":")).encode())


@lru_cache(maxsize=64)  # the tokens of one ring have only a handful of different headers
def _kid_of(header_segment: str) -> str:
    """Return the `kid` of a header that has no fields other than `alg`, `kid` and the right `typ`.

    PyJWT ignores the type and unknown fields. An ignored field could be a statement about the token, and
    a token of another type is not meant to grant access (RFC 8725 section 3.11).
    """
    try:
        jwt.get_unverified_header(f"{header_segment}..")
        header = _object(base64url_decode(header_segment))
    except jwt.PyJWTError:
        raise InvalidToken(_NOT_A_JWT) from None
    if header.keys() != _HEADER_FIELDS:
        raise InvalidToken("The header must have exactly the fields alg, kid and typ.")
    if header["typ"] != TYPE:
        raise InvalidToken(f"The token must have the type {TYPE}.")
    kid: str = header["kid"]
    return kid


def _decode(token: str, key: VerificationKey, rules: TokenExpectations) -> dict[str, Any]:
    """Return the claims of a token. It must be signed by this key, with its algorithm, for our audience."""
    try:
        return _JWT.decode(
            token,
            key.public_key,
            algorithms=[key.algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            options=_OPTIONS,
        )
    except jwt.InvalidAlgorithmError:
        raise InvalidToken(UnknownKey.default_detail) from None
    except jwt.InvalidSignatureError:
        raise InvalidToken("The signature does not match.") from None
    except jwt.InvalidIssuerError:
        raise InvalidToken(f"The token has the wrong issuer; this service trusts {rules.issuer}.") from None
    except jwt.InvalidAudienceError:
        raise InvalidToken(
            f"The token has the wrong audience; this service expects {rules.audience}."
        ) from None
    except jwt.MissingRequiredClaimError:
        raise InvalidToken(_WRONG_CLAIM) from None
    except jwt.PyJWTError:
        raise InvalidToken(_NOT_A_JWT) from None


def _object(raw: bytes) -> dict[str, Any]:
    """Return a JSON object in UTF-8 without duplicate fields.

    `json.loads` also accepts UTF-16, and of a duplicate field it keeps the last one. Two parsers may choose
    different ones.
    """
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise jwt.DecodeError from None
    if not isinstance(value, dict):
        raise jwt.DecodeError
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate field")
    return fields


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
        raise InvalidToken(_WRONG_CLAIM) from None


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
