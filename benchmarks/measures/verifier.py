"""The verifier for other services: its first check compared with plain `jwt.decode`, and a cached check."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from benchmarks.plan import Plan
from benchmarks.results import Results, Row
from sessionapi import ids
from sessionapi.clock import system_clock
from sessionapi.tokens import access_token
from sessionapi.verifier import Verifier

ISSUER, AUDIENCE, KID = "https://login.example.com", "sessionapi", "key_1"
FIRST, CACHED_MICROSECONDS = 1.15, 3.0
TOKENS = 300
REPEATS = 20_000


def measure(plan: Plan, results: Results) -> None:
    """Compare both in many short turns. Each token is new to the verifier whose first check is timed."""
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = {**ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": KID, "alg": "ES256", "use": "sig"}
    given = [_token(private) for _ in range(TOKENS)]
    plain, first, cached = [], [], []
    for _ in range(plan.rounds * 3):
        with Verifier(ISSUER, jwks={"keys": [jwk]}) as verifier:
            plain.append(_each(_decode(private.public_key()), given))
            first.append(_each(verifier.verify, given))
            cached.append(_each(verifier.verify, given[:1] * REPEATS))
    ratio = median(ours / theirs for ours, theirs in zip(first, plain, strict=True))
    speeds = f"{median(first) * 1e6:.0f} µs against {median(plain) * 1e6:.0f} µs"
    again = median(cached) * 1e6
    results.rows += [
        Row(
            "verifier: first check ÷ plain `jwt.decode`",
            f"≤ {FIRST}",
            f"{ratio:.2f} ({speeds})",
            ratio <= FIRST,
        ),
        Row(
            "verifier: cached check",
            f"≤ {CACHED_MICROSECONDS:.0f} µs",
            f"{again:.1f} µs",
            again <= CACHED_MICROSECONDS,
        ),
    ]


def _decode(public_key: Any) -> Callable[[str], Any]:
    """Return the check that a service would write itself. It requires the same claims, issuer, audience."""
    required = {"require": ["exp", "iat", "sub", "sid", "jti"]}

    def decode(token: str) -> Any:
        return jwt.decode(
            token, public_key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER, options=required
        )

    return decode


def _token(private_key: Any) -> str:
    now = int(system_clock().timestamp())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": ids.public("user", ids.new_id()),
        "sid": ids.public("sess", ids.new_id()),
        "iat": now,
        "exp": now + access_token.LONGEST_TTL,
        "jti": ids.new_secret().hex(),
        "auth_time": now,
        "amr": ["pwd"],
        "roles": [],
    }
    return jwt.encode(claims, private_key, "ES256", {"kid": KID, "typ": access_token.TYPE})


def _each(check: Callable[[str], Any], given: Sequence[str]) -> float:
    """Return the seconds of one check."""
    began = time.perf_counter()
    for token in given:
        check(token)
    return (time.perf_counter() - began) / len(given)
