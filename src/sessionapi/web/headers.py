"""The outermost layer, in plain ASGI: request id, security headers, one log line and the counters."""

import re
import time
from collections.abc import Mapping

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessionapi import ids
from sessionapi.metrics import Metrics
from sessionapi.web.proxies import ProxyWarning

log = structlog.get_logger()

API_CSP = "default-src 'none'; frame-ancestors 'none'"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Labels of a metric are closed: a stranger's method must not make a series of its own."""
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def security_headers(*, https: bool) -> Mapping[str, str]:
    """Return the headers of every answer; HSTS only where the public address is https."""
    headers = {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "content-security-policy": API_CSP,
    }
    if https:
        headers["strict-transport-security"] = "max-age=63072000; includeSubDomains"
    return headers


class Edge:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, https: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = security_headers(https=https)
        self._proxy_warning = ProxyWarning()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        self._proxy_warning.look(scope)
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, request_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_with_headers)
            self._tell(scope, status, time.perf_counter() - began)

    def _add_headers(self, message: Message, request_id: str) -> None:
        headers = MutableHeaders(scope=message)
        headers["x-request-id"] = request_id
        for name, value in self._headers.items():
            headers.setdefault(name, value)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count; the query string stays out, for it may hold what is nobody's business."""
        route = getattr(scope.get("route"), "path", "none")
        log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(seconds * 1000, 1),
            client=(scope.get("client") or ("unknown",))[0],
        )
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)


def _request_id(scope: Scope) -> str:
    given: bytes = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _SANE_REQUEST_ID.fullmatch(given) else ids.new_id().hex
