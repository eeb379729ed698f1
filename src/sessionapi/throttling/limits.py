"""How many tries are allowed, and what they are counted under. Nothing here counts.

`windows.py` counts in the memory of a process, `throttle.py` in the database.
"""

import hmac
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Literal
from uuid import UUID

from sessionapi.errors import RateLimited
from sessionapi.models import FailureCounter, FailureCounters

LimitName = Literal[
    "login", "signup", "refresh", "password", "attempt", "attempt_address", "write", "write_user"
]
"""The name of a limit in the `RateLimit` headers and in the metrics."""

UNKNOWN_USER_TTL = timedelta(days=30)
"""How long the failures of a name that nobody has are kept, so that made-up names don't fill the database."""
DEVICE_TTL = timedelta(days=365)
"""How long those of a device or a session are: the lifetime of a device cookie."""
_REASONS: dict[LimitName, str] = {
    "login": "Too many logins from your network.",
    "signup": "Too many sign-ups and new usernames from your network or account.",
    "refresh": "This session is renewed too often: use an access token until it expires.",
    "password": "Too many wrong passwords. Log in on a device where you have before, or reset the password.",
    "attempt": "Too many password checks for this account.",
    "attempt_address": "Too many password checks in sessions from your network.",
    "write": "This session changes too much in a minute.",
    "write_user": "Your sessions change too much in a minute.",
}
MANY = 5
"""The password checks in sessions from one address, in those of one user, and the writes of a user, in those
of one session."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The numbers, from the settings of the same names; windows are in seconds."""

    login_per_address: int = 30
    signup_per_address: int = 10
    refresh_per_session: int = 120
    password_checks_per_user: int = 20
    writes_per_session: int = 60
    login_failures: int = 10
    login_failures_window: int = 600
    account_failures: int = 100


def refusal(policy: LimitName, quota: int, window: int, retry_after: float) -> RateLimited:
    """Return the error of a limit that is used up for so many seconds more."""
    return RateLimited(_REASONS[policy], policy, quota, window, max(1, math.ceil(retry_after)))


@lru_cache(maxsize=10_000)
def address(host: str | None) -> IPv4Address | IPv6Address | None:
    """Return the address that a connection or a proxy names, or None for what is none (`unknown`, a path).

    An IPv4 address is one, also when it comes over an IPv6 socket.
    """
    try:
        found = ip_address(host or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or (IPv6Address(int(found)) if isinstance(found, IPv6Address) else found)


@lru_cache(maxsize=10_000)
def canonical(host: str | None) -> str | None:
    """Return the one spelling of an address, or None for what is none."""
    found = address(host)
    return str(found) if found else None


def network(host: str | None) -> str:
    """Return whom an address counts as: IPv6 by /64, which is what one customer is given (RFC 6177).

    All whose address isn't known count as one.
    """
    found = address(host)
    if isinstance(found, IPv6Address):
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return canonical(host) or "unknown"


def trusted_peers(networks: Sequence[str]) -> list[str]:
    """Return the peers to believe: on an IPv6 socket an IPv4 proxy has an IPv4-mapped address."""
    found = [ip_network(text) for text in networks]
    mapped = [
        f"::ffff:{each.network_address}/{96 + each.prefixlen}"
        for each in found
        if isinstance(each, IPv4Network)
    ]
    return [*(str(each) for each in found), *mapped]


class FailureCounterKeys:
    """Names the counts: by HMAC, so that the database holds neither a typed name nor an address."""

    def __init__(self, key: bytes, limits: RateLimits) -> None:
        self._key = key
        self.limits = limits

    def for_unknown_device(self, subject: UUID | str, host: str | None) -> FailureCounters:
        """Return the counts of a login on a device that isn't known: by network, and of the whole account.

        `subject` is the user's id, or what was typed where a name should be that nobody has.
        """
        kept = None if isinstance(subject, UUID) else UNKNOWN_USER_TTL
        recent = self._digest("network", *_who(subject), network(host))
        return self._buckets("account", recent, self._digest("account", *_who(subject)), kept)

    def for_device(self, user_id: UUID, device: bytes) -> FailureCounters:
        """Return the counts of a login on a device that this user has logged in on before."""
        names = (user_id.hex, device.hex())
        recent, in_a_row = self._digest("device", *names), self._digest("device in a row", *names)
        return self._buckets("device", recent, in_a_row, DEVICE_TTL)

    def of_session(self, session_id: UUID) -> FailureCounters:
        """Return the counts of a living session that is asked for the password again."""
        name = session_id.hex
        recent, in_a_row = self._digest("session", name), self._digest("session in a row", name)
        return self._buckets("session", recent, in_a_row, DEVICE_TTL)

    def account(self, user_id: UUID) -> bytes:
        """Return the key of the count that locks an account."""
        return self._digest("account", *_who(user_id))

    def _buckets(
        self,
        on: Literal["account", "device", "session"],
        recent: bytes,
        in_a_row: bytes,
        kept: timedelta | None,
    ) -> FailureCounters:
        limits = self.limits
        window = timedelta(seconds=limits.login_failures_window)
        return FailureCounters(
            on,
            FailureCounter(recent, limits.login_failures, window),
            FailureCounter(in_a_row, limits.account_failures, kept),
        )

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._key, json.dumps(parts).encode(), "sha256")


def _who(subject: UUID | str) -> tuple[str, str]:
    return ("user", subject.hex) if isinstance(subject, UUID) else ("nobody", subject)
