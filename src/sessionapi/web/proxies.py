"""Addresses behind proxies: which are believed, and a warning when one isn't that perhaps should be.

uvicorn takes the rightmost address of `X-Forwarded-For` that isn't a trusted proxy's, and only when the
connection itself comes from one; so whatever a client writes into the header itself is left of that.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, ip_network

import structlog
from starlette.types import Scope

log = structlog.get_logger()


def trusted(networks: Sequence[str]) -> list[str]:
    """Return what uvicorn is to trust: on an IPv6 socket an IPv4 proxy has an IPv4-mapped address."""
    found = [ip_network(text) for text in networks]
    mapped = [
        f"::ffff:{each.network_address}/{96 + each.prefixlen}"
        for each in found
        if isinstance(each, IPv4Network)
    ]
    return [*(str(each) for each in found), *mapped]


class ProxyWarning:
    """Tells once that a proxy isn't trusted: then all its clients count as one, and are throttled as one."""

    def __init__(self) -> None:
        self._told = False

    def look(self, scope: Scope) -> None:
        """Look at one request. A client that was taken from the header is in it."""
        if self._told:
            return
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        peer = (scope.get("client") or ("unknown",))[0]
        if forwarded and peer not in forwarded.decode("latin-1"):
            self._told = True
            log.warning("X-Forwarded-For from an address that isn't in TRUSTED_PROXIES is ignored", peer=peer)
