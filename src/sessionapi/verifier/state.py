"""The state and the decisions of a verifier without I/O, shared by the sync and the async verifier.

`Core.wanted` decides what has to be fetched, `take_keys` and `take_revocations` store what was fetched, and
`verify` uses it. Ages are measured with the same clock as `exp`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sessionapi.errors import AuthenticationError, SessionRevoked, Unavailable
from sessionapi.models import REVOCATION_WINDOW, VerificationKey
from sessionapi.tokens import access_token
from sessionapi.tokens.access_token import Claims, TokenExpectations
from sessionapi.tokens.cache import TokenCache

DEFAULT_MAX_AGE = 300
"""Seconds that keys are cached if the issuer sends no `max-age`. It is the default of JWKS_MAX_AGE."""
AHEAD = 0.8
"""The fraction of their maximum age after which keys are refreshed in the background."""
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

Want = Literal["now", "soon", "nothing"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Timings of a verifier, in seconds.

    `cooldown` is the minimum time between two fetches for an unknown `kid` or after a failure, so that forged
    tokens can't make us call the issuer. `keep` is how long keys are used while the issuer can't be reached.
    `fetch` is the deadline for one response of the issuer, from connecting to the last byte.
    """

    cooldown: float = 10.0
    keep: float = 3600.0
    fetch: float = 5.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A revocation of every session whose id is `up_to` or sorts before it, fetched at `seen_at`."""

    up_to: str
    reason: str
    seen_at: datetime


@dataclass(slots=True)
class Core:
    """The state of one verifier."""

    rules: TokenExpectations
    limits: Limits
    fixed: bool = False
    _keys: dict[str, VerificationKey] = field(default_factory=dict)
    _fetched_at: datetime | None = None
    _tried_at: datetime | None = None
    _max_age: float = DEFAULT_MAX_AGE
    _failure: str = ""
    _ring: str | None = None
    _ring_of_keys: str | None = None
    _ended: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    _mark: Mark | None = None
    _cache: TokenCache = field(init=False)

    def __post_init__(self) -> None:
        self._cache = TokenCache(self._keys_get, self.rules)

    @property
    def has_keys(self) -> bool:
        """True if there is at least one key."""
        return bool(self._keys)

    def wanted(self, token: str, now: datetime) -> Want:
        """Return whether keys have to be fetched before this token is verified ("now") or in the background.

        Callers wait for a refresh of old keys only until a fetch has failed. So they don't wait while the
        issuer is unavailable.
        """
        if self.fixed:
            return "nothing"
        if self._fetched_at is None or self._names_unknown_key(token):
            return "now"
        age = (now - self._fetched_at).total_seconds()
        if age >= self._max_age and not self._failure:
            return "now"
        return "soon" if age >= self._max_age * AHEAD else "nothing"

    def may_try(self, now: datetime) -> bool:
        """Return whether the cooldown since the last fetch is over."""
        if self._tried_at is None:
            return True
        return (now - self._tried_at).total_seconds() >= self.limits.cooldown

    def tried(self, now: datetime) -> None:
        """Record that a fetch has ended, successfully or not, which starts the cooldown."""
        self._tried_at = now

    def after_fork(self) -> None:
        """Start again in a child process, where a lock may be held by a thread that does not exist there."""
        self._cache = TokenCache(self._keys_get, self.rules)
        self._tried_at = None

    def take_keys(self, jwks: Mapping[str, Any], now: datetime, max_age: float | None = None) -> None:
        """Store a JWK Set without the keys that are not safe to use. A set without usable keys is refused."""
        listed = jwks.get("keys")
        keys = [key for each in listed if (key := read_key(each))] if isinstance(listed, list) else []
        if not keys:
            self.failed("its JWKS has no usable key")
            return
        # An unchanged key stays the same object, so that tokens verified with it stay cached.
        known = self._keys
        self._keys = {key.kid: known[key.kid] if known.get(key.kid) == key else key for key in keys}
        self._fetched_at, self._failure, self._ring_of_keys = now, "", self._ring
        self._max_age = max_age if max_age is not None else DEFAULT_MAX_AGE

    def failed(self, why: str) -> None:
        """Record why a fetch failed. The current keys stay in use until they are too old."""
        self._failure = why

    def take_revocations(self, answer: Mapping[str, Any], now: datetime) -> None:
        """Store the issuer's list of ended sessions and the version of its key ring.

        Raises KeyError or TypeError, and changes nothing, if it is not a valid list.
        """
        listed = {_text(each["session_id"]): (_text(each["reason"]), now) for each in answer["revoked"]}
        mark = _mark_of(answer.get("revoked_up_to"), now)
        ring = _text(answer["keys"])
        young = {each: ended for each, ended in self._ended.items() if ended[1] >= now - REVOCATION_WINDOW}
        self._ended = {**young, **listed}
        self._ring = ring
        if (
            self._mark is None
            or self._mark.seen_at < now - REVOCATION_WINDOW
            or (mark and mark.up_to >= self._mark.up_to)
        ):
            self._mark = mark

    @property
    def keys_outdated(self) -> bool:
        """True if the issuer's key ring has changed since the keys were fetched."""
        return self._fetched_at is not None and self._ring_of_keys != self._ring

    def verify(self, token: str, now: datetime) -> Claims:
        """Return the claims of a valid token, or raise an AuthenticationError or Unavailable."""
        self._refuse_without_keys(now)
        claims = self._cache.verify(token, now)
        ended = self._ended.get(claims.session_id)
        if ended is not None:
            raise SessionRevoked(ended[0])
        if self._mark is not None and claims.session_id <= self._mark.up_to:
            raise SessionRevoked(self._mark.reason)
        return claims

    def _keys_get(self, kid: str) -> VerificationKey | None:
        return self._keys.get(kid)

    def _names_unknown_key(self, token: str) -> bool:
        try:
            return access_token.key_id(token) not in self._keys
        except AuthenticationError:
            return False

    def _refuse_without_keys(self, now: datetime) -> None:
        """Raise Unavailable if the keys were never fetched, or if they were not confirmed for too long."""
        if self.fixed:
            return
        if self._fetched_at is None:
            raise Unavailable(
                f"The keys of {self.rules.issuer} can't be fetched: {self._failure or 'not fetched yet'}."
            )
        age = (now - self._fetched_at).total_seconds()
        if age > max(self.limits.keep, self._max_age):
            raise Unavailable(
                f"The keys of {self.rules.issuer} are {age:.0f} s old and can't be fetched again: "
                f"{self._failure or 'no response'}."
            )


def _mark_of(value: Any, now: datetime) -> Mark | None:
    return None if value is None else Mark(_text(value["session_id"]), _text(value["reason"]), now)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def read_key(jwk: object) -> VerificationKey | None:
    """Return the key of a JWK, or None unless it is a signature key of a supported algorithm.

    An invalid key does not prevent the others in its set from being used.
    """
    try:
        return _read_key(jwk)
    except Exception:  # PyJWT and cryptography raise TypeError, AttributeError, OverflowError and others
        return None


def _read_key(jwk: object) -> VerificationKey | None:
    if not isinstance(jwk, Mapping) or not isinstance(jwk.get("kid"), str) or "d" in jwk:
        return None
    if jwk.get("use", "sig") != "sig":
        return None
    if jwk.get("alg") == "ES256" and jwk.get("crv") == "P-256":
        return VerificationKey(jwk["kid"], "ES256", ECAlgorithm.from_jwk(dict(jwk)))
    if jwk.get("alg") == "RS256":
        key: Any = RSAAlgorithm.from_jwk(dict(jwk))
        return (
            VerificationKey(jwk["kid"], "RS256", key)
            if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
            else None
        )
    return None


def max_age_of(cache_control: str | None) -> float | None:
    """Return the `max-age` of a `Cache-Control` header, limited to one second to one day, or None."""
    found = re.search(r"max-age=(\d{1,9})", cache_control or "")
    return None if found is None else min(max(float(found.group(1)), 1.0), 86_400.0)
