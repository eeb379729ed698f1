"""A warning when a proxy's word isn't believed that perhaps should be.

uvicorn takes the rightmost address of `X-Forwarded-For` that isn't a trusted proxy's, and only when the
connection itself comes from one; so what a client writes into the header itself is left of that.
"""

import structlog
from starlette.types import Scope

log = structlog.get_logger()


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
