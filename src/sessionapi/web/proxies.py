"""The client behind trusted proxies, and a warning where a proxy is perhaps missing from the setting.

uvicorn's middleware takes the rightmost address of `X-Forwarded-For` that isn't a trusted proxy's, and only
when the connection itself comes from one, so what a client writes into the header is left of that. It runs
inside the app, so that TRUSTED_PROXIES holds under any server.
"""

from collections.abc import Sequence

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sessionapi.throttling import limits

log = structlog.get_logger()


def behind(trusted_proxies: Sequence[str], app: ASGIApp) -> ASGIApp:
    """Return the app for requests that name another client than the connection's."""
    warning = ProxyWarning(app)
    if not trusted_proxies:
        return warning
    return ProxyHeadersMiddleware(warning, limits.trusted_peers(trusted_proxies))  # type: ignore[arg-type, return-value]


class ProxyWarning:
    """ASGI middleware that warns once that a proxy isn't trusted: its clients are throttled as one client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a client that was taken from the header is named in it."""
        if not self._warned:
            forwarded = scope["state"]["headers"].get(b"x-forwarded-for")
            peer = (scope.get("client") or ("unknown",))[0]
            if forwarded and peer not in forwarded.decode("latin-1"):
                self._warned = True
                log.warning(
                    "X-Forwarded-For from an address that isn't in TRUSTED_PROXIES is ignored", peer=peer
                )
        await self._app(scope, receive, send)
