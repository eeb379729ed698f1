"""What a verifier knows and decides, without any I/O: shared by the sync and the async one.

It says what has to be fetched (`wanted`), takes what was fetched (`take_keys`, `take_revocations`), and
verifies with what it has. Ages are told by the same clock as `exp`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sessionapi.errors import AuthenticationError, SessionRevoked, Unavailable
from sessionapi.models import VerificationKey
from sessionapi.tokens import access_token
from sessionapi.tokens.access_token import Claims, TokenExpectations
from sessionapi.tokens.cache import TokenCache

DEFAULT_MAX_AGE = 300
"""Seconds that keys are kept where the issuer doesn't say: our own JWKS_MAX_AGE."""
AHEAD = 0.8
"""The part of their age after which keys are renewed while they are still good."""
WINDOW = timedelta(seconds=315)
"""How long an ended session is remembered: longer than any access token lives (design 4.4)."""
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

Want = Literal["now", "soon", "nothing"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How a verifier treats its keys; all in seconds.

    `cooldown`: the least time between two fetches for an unknown `kid` or after a failure, so that forged
    tokens can't make us call the issuer. `keep`: how long keys are used while the issuer can't be reached.
    `fetch`: the deadline for one answer of the issuer, from connecting to its last byte.
    """

    cooldown: float = 10.0
    keep: float = 3600.0
    fetch: float = 5.0


@dataclass(frozen=True, slots=True)
class Mark:
    """The issuer has ended every session whose id is `up_to` or sorts before it, as seen at `seen_at`."""

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
        """Whether there are keys at all."""
        return bool(self._keys)

    def wanted(self, token: str, now: datetime) -> Want:
        """Return whether keys have to be fetched before this token is verified, or beside it.

        Old keys are waited for only until a fetch has failed: while the issuer is away, nobody waits.
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
        """Note that a fetch has ended, well or not: the next one waits for the cooldown."""
        self._tried_at = now

    def after_fork(self) -> None:
        """Begin again in a new process: a lock may be held by a thread that is not there."""
        self._cache = TokenCache(self._keys_get, self.rules)
        self._tried_at = None

    def take_keys(self, jwks: Mapping[str, Any], now: datetime, max_age: float | None = None) -> None:
        """Take over a JWK Set; keys that we could not use safely are left out. An empty one is refused."""
        listed = jwks.get("keys")
        keys = [key for each in listed if (key := read_key(each))] if isinstance(listed, list) else []
        if not keys:
            self.failed("its JWKS has no key that can be used")
            return
        # A key that is the same stays the same object: what was verified with it stays remembered.
        known = self._keys
        self._keys = {key.kid: known[key.kid] if known.get(key.kid) == key else key for key in keys}
        self._fetched_at, self._failure, self._ring_of_keys = now, "", self._ring
        self._max_age = max_age if max_age is not None else DEFAULT_MAX_AGE

    def failed(self, why: str) -> None:
        """Note why a fetch failed; the keys that we have are kept for a while."""
        self._failure = why

    def take_revocations(self, answer: Mapping[str, Any], now: datetime) -> None:
        """Take over the issuer's list of ended sessions, and the version of its key ring.

        Raises KeyError or TypeError, and changes nothing, if it isn't such a list.
        """
        listed = {_text(each["session_id"]): (_text(each["reason"]), now) for each in answer["revoked"]}
        mark = _mark_of(answer.get("revoked_up_to"), now)
        ring = _text(answer["keys"])
        young = {each: ended for each, ended in self._ended.items() if ended[1] >= now - WINDOW}
        self._ended = {**young, **listed}
        self._ring = ring
        if (
            self._mark is None
            or self._mark.seen_at < now - WINDOW
            or (mark and mark.up_to >= self._mark.up_to)
        ):
            self._mark = mark

    @property
    def keys_outdated(self) -> bool:
        """Whether the issuer's key ring has changed since the keys were fetched."""
        return self._fetched_at is not None and self._ring_of_keys != self._ring

    def verify(self, token: str, now: datetime) -> Claims:
        """Return the claims of a good token, else raise the error of the tree that says what is wrong."""
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
        """Fail closed, saying so: without keys, or with keys that nobody has confirmed for too long."""
        if self.fixed:
            return
        if self._fetched_at is None:
            raise Unavailable(
                f"The keys of {self.rules.issuer} can't be fetched: {self._failure or 'not yet'}."
            )
        age = (now - self._fetched_at).total_seconds()
        if age > max(self.limits.keep, self._max_age):
            raise Unavailable(
                f"The keys of {self.rules.issuer} are {age:.0f} s old and can't be fetched again: "
                f"{self._failure or 'no answer'}."
            )


def _mark_of(value: Any, now: datetime) -> Mark | None:
    return None if value is None else Mark(_text(value["session_id"]), _text(value["reason"]), now)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def read_key(jwk: object) -> VerificationKey | None:
    """Return the key of a JWK that is for signatures, of one algorithm that we take; else None.

    Whatever is wrong with a key, the others of its set are read.
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
    """Return the seconds of `Cache-Control: max-age`, between one second and a day, if it says so."""
    found = re.search(r"max-age=(\d{1,9})", cache_control or "")
    return None if found is None else min(max(float(found.group(1)), 1.0), 86_400.0)
