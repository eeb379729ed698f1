"""The client behind trusted proxies, and a warning if a proxy seems to be missing in TRUSTED_PROXIES.

uvicorn's middleware takes the rightmost address of `X-Forwarded-For` that isn't a trusted proxy's, and only
if the connection comes from a trusted proxy. What a client writes into the header is to the left of that
address, so it is ignored. The middleware runs inside the app, so that TRUSTED_PROXIES works under any server.
"""

from collections.abc import Sequence

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sessionapi.throttling import limits

log = structlog.get_logger()


def behind(trusted_proxies: Sequence[str], app: ASGIApp) -> ASGIApp:
    """Return the app for requests with a forwarded header, which name a client other than the peer."""
    warning = ProxyWarning(app)
    if not trusted_proxies:
        return warning
    return ProxyHeadersMiddleware(warning, limits.trusted_peers(trusted_proxies))  # type: ignore[arg-type, return-value]


class ProxyWarning:
    """ASGI middleware that warns once if a proxy isn't trusted, because its clients are throttled as one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. If the client is in the header, it was taken from there, without a warning."""
        if not self._warned:
            forwarded = scope["state"]["headers"].get(b"x-forwarded-for")
            peer = (scope.get("client") or ("unknown",))[0]
            if forwarded and peer not in forwarded.decode("latin-1"):
                self._warned = True
                log.warning(
                    "X-Forwarded-For from an address that isn't in TRUSTED_PROXIES is ignored", peer=peer
                )
        await self._app(scope, receive, send)
