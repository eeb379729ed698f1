"""Limits on attempts: the configured numbers, and the keys that attempts are counted under.

Nothing is counted here. `rate_limiter.py` counts in the memory of a process, `login_throttle.py` in the
database.
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
"""Name of a limit in the `RateLimit` headers and in the metrics."""

UNKNOWN_USER_TTL = timedelta(days=30)
"""How long failures for an unknown username are kept, so that made-up names do not fill the database."""
DEVICE_TTL = timedelta(days=365)
"""How long failures on a device or in a session are kept: the lifetime of a device cookie."""
_REASONS: dict[LimitName, str] = {
    "login": "Too many logins from your network.",
    "signup": "Too many sign-ups and new usernames from your network or account.",
    "refresh": "This session is refreshed too often. Use each access token until it expires.",
    "password": "Too many wrong passwords. Log in on a device you have used before, or reset the password.",
    "attempt": "Too many password checks for this account.",
    "attempt_address": "Too many password checks in sessions from your network.",
    "write": "This session has made too many changes in the last minute.",
    "write_user": "Your sessions have made too many changes in the last minute.",
}
MANY = 5
"""Factor between the limits of a group and those of its members.

One network may make this many times as many password checks in sessions as one user, and one user this many
times as many writes as one session.
"""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The configured limits, from the settings of the same names; windows are in seconds."""

    login_per_address: int = 30
    signup_per_address: int = 10
    refresh_per_session: int = 120
    password_checks_per_user: int = 20
    writes_per_session: int = 60
    login_failures: int = 10
    login_failures_window: int = 600
    account_failures: int = 100


def refusal(policy: LimitName, quota: int, window: int, retry_after: float) -> RateLimited:
    """Return the error for a limit that is used up; `retry_after` is in seconds."""
    return RateLimited(_REASONS[policy], policy, quota, window, max(1, math.ceil(retry_after)))


@lru_cache(maxsize=10_000)
def address(host: str | None) -> IPv4Address | IPv6Address | None:
    """Parse a peer address or an entry of X-Forwarded-For.

    Returns None if it is not an IP address (`unknown`, a socket path). An IPv4 address that arrives over an
    IPv6 socket is returned as IPv4.
    """
    try:
        found = ip_address(host or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or (IPv6Address(int(found)) if isinstance(found, IPv6Address) else found)


@lru_cache(maxsize=10_000)
def canonical(host: str | None) -> str | None:
    """Return the canonical text of an IP address, or None if it is not one."""
    found = address(host)
    return str(found) if found else None


def network(host: str | None) -> str:
    """Return the network that an address is counted under: IPv6 by /64, the size of a subnet (RFC 4291).

    All unknown addresses count as one network.
    """
    found = address(host)
    if isinstance(found, IPv6Address):
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return canonical(host) or "unknown"


def trusted_peers(networks: Sequence[str]) -> list[str]:
    """Return the trusted peers, including the IPv4-mapped address of an IPv4 proxy on an IPv6 socket."""
    found = [ip_network(text) for text in networks]
    mapped = [
        f"::ffff:{each.network_address}/{96 + each.prefixlen}"
        for each in found
        if isinstance(each, IPv4Network)
    ]
    return [*(str(each) for each in found), *mapped]


class FailureCounterKeys:
    """Keys of the failure counters. They are HMACs, so the database holds no typed name and no address."""

    def __init__(self, key: bytes, limits: RateLimits) -> None:
        self._key = key
        self.limits = limits

    def for_unknown_device(self, subject: UUID | str, host: str | None) -> FailureCounters:
        """Return the counters of a login on an unknown device: one per network, one for the whole account.

        `subject` is the user's id or, for an unknown user, the username that was entered.
        """
        kept = None if isinstance(subject, UUID) else UNKNOWN_USER_TTL
        recent = self._digest("network", *_who(subject), network(host))
        return self._buckets("account", recent, self._digest("account", *_who(subject)), kept)

    def for_device(self, user_id: UUID, device: bytes) -> FailureCounters:
        """Return the counters of a login on a device that this user has logged in on before."""
        names = (user_id.hex, device.hex())
        recent, in_a_row = self._digest("device", *names), self._digest("device in a row", *names)
        return self._buckets("device", recent, in_a_row, DEVICE_TTL)

    def of_session(self, session_id: UUID) -> FailureCounters:
        """Return the counters of an active session in which the password is entered again."""
        name = session_id.hex
        recent, in_a_row = self._digest("session", name), self._digest("session in a row", name)
        return self._buckets("session", recent, in_a_row, DEVICE_TTL)

    def account(self, user_id: UUID) -> bytes:
        """Return the key of the counter that locks an account."""
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
