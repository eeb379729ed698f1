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
    """Return the app with public paths open to all pages, and other paths to pages of these origins."""
    app = open_to_all(app, public)
    return open_to(origins, app, public=public) if origins else app


def open_to_all(app: ASGIApp, paths: Collection[str]) -> ASGIApp:
    """Let pages of every origin read these paths, without credentials."""
    opened = CORSMiddleware(app, allow_origins=["*"], allow_methods=["GET", "HEAD"], allow_headers=["*"])
    return ByPath(paths, opened, app)


def open_to(origins: Collection[str], app: ASGIApp, *, public: Collection[str]) -> ASGIApp:
    """Let pages of these origins read everything, with credentials. Public paths are already open."""
    opened = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_credentials=True,
        allow_methods=METHODS,
        allow_headers=["*"],
        expose_headers=EXPOSED,
    )
    return ByPath(public, app, opened)
