"""CORS, which is off except for the origins in ALLOWED_ORIGINS and for public files.

Preflights allow every header: a listed origin is trusted with the user's session, and libraries for tracing
add headers (`traceparent`, `sentry-trace`, `baggage`) that operators list only after a request has failed.
"""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
EXPOSED = ("Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID", "WWW-Authenticate")
OPEN = {"Access-Control-Allow-Origin": "*"}
"""Sent with every public file, even without `Origin`, because a shared cache may return it to a page."""


class ByPath:
    """ASGI middleware that serves some paths with one app and all others with another."""

    def __init__(self, paths: Collection[str], app: ASGIApp, others: ASGIApp) -> None:
        self._paths = frozenset(paths)
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await (self._app if scope.get("path") in self._paths else self._others)(scope, receive, send)


def surround(app: ASGIApp, origins: Collection[str], public: Collection[str]) -> ASGIApp:
    """Return the app with CORS.

    Pages of every origin may read the public paths, without credentials. Pages of `origins` may read all
    others, with credentials.
    """
    open_to_all = CORSMiddleware(app, allow_origins=["*"], allow_methods=["GET", "HEAD"], allow_headers=["*"])
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    return ByPath(public, open_to_all, app)
